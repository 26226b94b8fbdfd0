"""`audit run` as operators run it, and what it left behind."""

import contextlib
import subprocess
import sys
import uuid

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rig import SCHEMAS, read_all
from worker_process import ROOT, WorkerProcess, clean_environment

HEADER_BYTES = 10
AUDIT = {"file_rows": 100, "file_age_s": 0.4}


class AuditProcess(WorkerProcess):
    """One `python -m app audit run`."""

    def __init__(self, settings, folder, **environment):
        folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex[:8]
        config = folder / f"audit-{name}.yaml"
        config.write_text(yaml.safe_dump(settings))
        self.config = config
        self._log = folder / f"audit-{name}.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app", "audit", "run", "--config", config],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT,
                env=clean_environment(**environment),
            )  # fmt: skip


@contextlib.contextmanager
def running_audit(settings, folder):
    """For the length of a block."""
    audit = AuditProcess(settings, folder)
    try:
        yield audit
    except BaseException as exc:
        exc.add_note(audit.tail())
        raise
    finally:
        audit.kill()


def settings_over(kafka, topic, store, *, group=None, store_options=None, **audit):
    """Of an audit that reads this prediction topic."""
    pipeline = {"name": "churn", "input_topics": ["in"], "output_topic": topic, "dead_letter_topic": "dead",
                "model": "churn", "prediction_schema": "ChurnPrediction", "event_schema": "ChurnEvent"}  # fmt: skip
    return {
        "kafka": {"bootstrap_servers": kafka, "group_id": group or f"group-{uuid.uuid4().hex[:12]}",
                  "session_timeout_s": 3},
        "schemas": {"directory": str(SCHEMAS)},
        "pipelines": [pipeline],
        "models": {"store_options": store_options or {}},
        "audit": {"store": store} | AUDIT | audit,
        "http": {"port": 0},
        "log": {"format": "json"},
    }  # fmt: skip


def files_in(folder):
    """Every Parquet file of a trail."""
    return sorted(folder.rglob("*.parquet"))


def count_in(folder):
    """Rows in all files, those appearing now left out."""
    return sum(pq.read_metadata(file).num_rows for file in files_in(folder))


def rows_in(folder):
    """(partition, offset) → row; each may be there only once."""
    tables = [pq.read_table(file, partitioning=None) for file in files_in(folder)]
    rows = pa.concat_tables(tables, promote_options="default").to_pylist()
    found = {(row["audit_partition"], row["audit_offset"]): row for row in rows}
    assert len(found) == len(rows), "a record is in two rows"
    return found


def assert_equal_to_the_topic(folder, kafka, topic):
    """Row by row: what any consumer of committed records gets is what the files have, field by field."""
    schema = fastavro.schema.load_schema(SCHEMAS / "churn_prediction.avsc")
    rows = rows_in(folder)
    messages = read_all(kafka, topic)
    assert rows.keys() == {(message.partition(), message.offset()) for message in messages}
    for message in messages:
        row = rows[message.partition(), message.offset()]
        assert row["audit_key"] == message.key()
        assert round(row["audit_time"].timestamp() * 1000) == message.timestamp()[1]
        try:
            expected = _read(message.value(), schema)
        except (EOFError, IndexError, TypeError):
            assert row["audit_reject"] is not None
        else:
            assert row["audit_reject"] is None
            assert {name: row[name] for name in expected} == expected


def _read(value, schema):
    from io import BytesIO

    return fastavro.schemaless_reader(BytesIO(value[HEADER_BYTES:]), schema, None)
