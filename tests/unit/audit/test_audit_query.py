"""Asking a trail, and forgetting: what was predicted for a key, and when that is no longer known."""

from datetime import UTC, date, datetime, timedelta

import orjson
import pyarrow.parquet as pq
import pytest
import yaml
from audit_world import (
    DAY_MS,
    PIPELINE,
    SECOND,
    SOURCE,
    TOPIC,
    Topic,
    World,
    objects_in,
    offsets_in,
    pipeline_rows,
    prediction,
)
from fakes import NOW_MS, ManualClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from app.__main__ import cli
from app.audit import files, query
from app.audit.expiry import expire
from app.audit.lane import RollPolicy
from app.audit.masking import Mask
from app.audit.query import Question, answers
from app.audit.trail import FEATURES, Claim, Trail, file_path
from app.audit.writer import Kept
from app.errors import AuditBroken, BadSettings, StoreRefused

TODAY = datetime.fromtimestamp(NOW_MS / 1000, UTC).date()
KEYS = ["a", "b", "c", "d"]


def written(folder, records, **options):
    """A trail of these records, a file for every few of them."""
    world = World(folder, Topic(records), RollPolicy(rows=5, age_s=10), **options)
    world.source.at_most = 5
    world.source.assign(SOURCE)
    world.turn(len(records) // 5 + 2)
    world.settle()
    return world.trail


def ask(trail, key, **options):
    return answers([trail], Question(key, **options), lambda done, total: None)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=40),
    days=st.lists(st.integers(-3, 0), min_size=40, max_size=40),
    since=st.none() | st.integers(-4, 1),
    until=st.none() | st.integers(-4, 1),
    limit=st.integers(1, 50),
)
def test_an_answer_is_what_reading_everything_would_give(tmp_path_factory, keys, days, since, until, limit):
    at = [NOW_MS + days[n] * DAY_MS + n for n in range(len(keys))]
    records = [prediction(n, key, at_ms=at[n]) for n, key in enumerate(keys)]
    trail = written(tmp_path_factory.mktemp("trail"), records)
    bounds = [None if day is None else NOW_MS + day * DAY_MS for day in (since, until)]
    expected = [
        n
        for n in sorted(range(len(keys)), key=lambda n: (-at[n], n))
        if keys[n] == "b" and (bounds[0] is None or at[n] >= bounds[0]) and (bounds[1] is None or at[n] < bounds[1])
    ]
    times = [None if bound is None else datetime.fromtimestamp(bound / 1000, UTC) for bound in bounds]
    found = ask(trail, b"b", since=times[0], until=times[1], limit=limit)
    assert [row["audit_offset"] for row in found] == expected[:limit]


@pytest.mark.parametrize(
    ("field", "at"), [("predicted_at", 2**60), ("predicted_at", -(2**60)), ("at_ms", 2**60), ("at_ms", 2**63 - 1)]
)
def test_a_hostile_time_of_one_record_hides_none_of_its_key(tmp_path, field, at):
    trail = written(tmp_path, [prediction(0, "a"), prediction(1, "a", **{field: at}), prediction(2, "b")])
    found = {row["audit_offset"]: row for row in ask(trail, b"a")}
    assert sorted(found) == [0, 1]
    assert found[1]["predicted_at" if field == "predicted_at" else "audit_time"] == at
    assert isinstance(found[0]["audit_time"], datetime)
    assert len(ask(trail, b"b")) == 1


def test_a_record_whose_clock_was_ahead_over_midnight_is_found_from_midnight_on(tmp_path):
    midnight = datetime.combine(TODAY + timedelta(days=1), datetime.min.time(), UTC)
    trail = written(tmp_path, [prediction(0, "a", at_ms=int(midnight.timestamp() * 1000) + 1_000)])
    assert len(ask(trail, b"a", since=midnight)) == len(ask(trail, b"a")) == 1


def test_of_a_hot_key_no_more_rows_are_held_than_are_asked_for(tmp_path, monkeypatch):
    trail = written(tmp_path, [prediction(n, "a", at_ms=NOW_MS + n) for n in range(40)])
    held = []
    monkeypatch.setattr(query, "plain_values", lambda column: held.append(len(column)) or column.to_pylist())
    assert [row["audit_offset"] for row in ask(trail, b"a", limit=3)] == [39, 38, 37]
    assert max(held) == 3


def test_only_the_row_groups_that_may_have_the_key_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "GROUP_ROWS", 500)
    records = [prediction(n, f"customer-{n * 7919 % 20_000:05}", probability=n / 3) for n in range(20_000)]
    world = World(tmp_path, Topic(records))
    world.source.at_most = 20_000
    world.source.assign(SOURCE)
    world.settle()
    (file,) = world.trail.files()
    read = []
    part = world.trail.objects.part
    monkeypatch.setattr(
        world.trail.objects, "part", lambda path, start, size: read.append(size) or part(path, start, size)
    )
    (row,) = ask(world.trail, b"customer-00042")
    assert row["customer_id"] == "customer-00042"
    assert len(read) == 3  # its end, the keys of one group, the group
    assert sum(read) < 80_000 < file.size / 4


def test_an_answer_says_which_file_it_is_from(tmp_path):
    trail = written(tmp_path, [prediction(n) for n in range(7)])
    (row,) = ask(trail, b"c-6")
    assert (row["pipeline"], row["topic"], row["audit_partition"], row["audit_offset"]) == (PIPELINE, TOPIC, 0, 6)
    assert pq.read_table(tmp_path / row["file"], partitioning=None).num_rows == 2


def test_the_newest_days_answer_without_the_older_ones(tmp_path):
    records = [prediction(n, "a", at_ms=NOW_MS - (9 - n) * DAY_MS) for n in range(10)]
    trail = written(tmp_path, records)
    looked_at = []
    found = answers([trail], Question(b"a", limit=2), lambda done, total: looked_at.append((done, total)))
    assert [row["audit_offset"] for row in found] == [9, 8]
    assert looked_at[-1] == (3, 10)  # the day before has a clock that was ahead, if there was one


def test_files_of_an_older_schema_answer_beside_newer_ones(tmp_path):
    world = World(tmp_path, Topic([prediction(0, "a"), prediction(1, "a", node=SECOND, channel="shop")]))
    world.source.at_most = 1
    world.source.assign(SOURCE)
    world.turn()
    world.clock.advance(10)  # the first one is due, and the second one is read by a writer that knows more
    world.writer._kept[TOPIC] = Kept(world.trail, pipeline_rows(reader=SECOND))
    world.turn()
    world.settle()
    found = ask(world.trail, b"a")
    assert [row.get("channel") for row in found] == [None, "shop"]


def test_a_hashed_key_is_found_by_who_has_the_secret(tmp_path):
    modes = {"customer_id": "hash", "audit_key": "hash"}
    mask, other = Mask(modes, b"0123456789abcdef"), Mask(modes, b"another secret!!")
    trail = written(tmp_path, [prediction(n) for n in range(7)], mask=mask)
    assert [row["audit_offset"] for row in ask(trail, mask.key(b"c-3"))] == [3]
    assert ask(trail, other.key(b"c-3")) == ask(trail, b"c-3") == []
    assert all(b"c-3" not in file.read_bytes() for file in tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"junk" * 100, b"PAR1" + b"\xff" * 64 + b"PAR1"])
def test_a_file_that_is_no_parquet_is_named(tmp_path, content):
    trail = written(tmp_path, [prediction(n) for n in range(3)])
    path = f"pipeline={PIPELINE}/date={TODAY}/{TOPIC}-0-{90:020}-{91:020}.parquet"
    trail.objects.create(path, content)
    with pytest.raises(AuditBroken, match=f"{TOPIC}-0-0*90-0*91.parquet is not a file of an audit trail"):
        ask(trail, b"c-1")


def test_other_objects_in_the_store_are_nobodys_business(tmp_path):
    trail = written(tmp_path, [prediction(n) for n in range(3)])
    for path in ("README", f"pipeline={PIPELINE}/date={TODAY}/notes.parquet", f"pipeline={PIPELINE}/date=2025-99-99/x"):
        trail.objects.create(path, b"?")
    assert len(ask(trail, b"c-1")) == 1
    assert expire(trail, date(2099, 1, 1), 1, dry_run=False).files == 1


def test_days_that_are_too_long_ago_are_deleted_and_no_row_before_its_time(tmp_path):
    records = [prediction(n, "a", at_ms=NOW_MS - (9 - n) * DAY_MS) for n in range(10)]
    trail = written(tmp_path, records)
    dry = expire(trail, TODAY, 3, dry_run=True)
    assert len(trail.files()) == 10
    assert expire(trail, TODAY, 3, dry_run=False) == dry
    assert (dry.files, dry.days[0], dry.days[-1]) == (6, TODAY - timedelta(days=9), TODAY - timedelta(days=4))
    assert offsets_in(tmp_path) == [6, 7, 8, 9]
    assert expire(trail, TODAY, 3, dry_run=False).files == 0


def test_a_trail_of_which_everything_expired_goes_on_where_it_was(tmp_path):
    topic = Topic([prediction(n) for n in range(10)])
    world = World(tmp_path, topic)
    world.source.assign(SOURCE)
    world.settle()
    expire(world.trail, TODAY + timedelta(days=10), 3, dry_run=False)
    assert offsets_in(tmp_path) == []
    clock = ManualClock(now_ms=NOW_MS + 10 * DAY_MS)
    later = World(tmp_path, topic, clock=clock, retention_days=3)
    later.source.assign(SOURCE)
    topic.records += [prediction(n, at_ms=clock.now_ms()) for n in range(10, 13)]
    later.settle()
    assert offsets_in(tmp_path) == [10, 11, 12]


@pytest.fixture
def config(tmp_path):
    """A settings file over a trail of seven predictions."""
    written(tmp_path / "audit", [prediction(n) for n in range(7)])

    def write(**audit):
        content = {
            "pipelines": [{"name": PIPELINE, "input_topics": ["in"], "output_topic": TOPIC, "dead_letter_topic": "dead",
                           "model": "churn"}],
            "audit": {"store": "file://audit"} | audit,
        }  # fmt: skip
        file = tmp_path / "worker.yaml"
        file.write_text(yaml.safe_dump(content))
        return str(file)

    return write


def run(*arguments):
    done = CliRunner().invoke(cli, ["audit", *arguments], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_query_answers_people_and_programs(config):
    file = config()
    (row,) = orjson.loads(run("query", "--config", file, "--key", "c-3", "--json").stdout)
    assert (row["audit_key"], row["audit_offset"], row["probability"]) == ("c-3", 3, 0.5)
    assert "probability=0.5" in " ".join(run("query", "--config", file, "--key", "c-3").stdout.split())
    assert run("query", "--config", file, "--key", "nobody").stdout.startswith("nothing was predicted for nobody")
    assert orjson.loads(run("query", "--config", file, "--key", "c-3", "--until", "2020-01-01", "--json").stdout) == []


def test_expire_needs_a_retention_and_says_what_it_did(config):
    with pytest.raises(BadSettings, match="retention_days is not set"):
        run("expire", "--config", config())
    file = config(retention_days=1)
    assert "1 files" not in run("expire", "--config", file, "--dry-run").stdout.replace("2 files", "")
    (done,) = orjson.loads(run("expire", "--config", file, "--json").stdout)
    assert (done["pipeline"], done["files"]) == (PIPELINE, 2)


def test_features_that_were_kept_once_expire_too(config, tmp_path):
    file = config(retention_days=1)
    trail = Trail(objects_in(tmp_path / "audit"), PIPELINE, FEATURES)
    trail.fill(Claim(0, 1, file_path(trail.folder, SOURCE, date(2024, 1, 1), 0, 0)), b"whatever it is")
    said = run("expire", "--config", file).stdout
    assert f"{PIPELINE} (features): 2024-01-01 to 2024-01-01, 1 files, 14 bytes deleted" in said
    assert trail.files() == []


def test_what_there_is_no_trail_of_is_named(config):
    with pytest.raises(StoreRefused, match=r"no audit trail at .*nowhere"):
        run("query", "--config", config(store="file://nowhere"), "--key", "x")
    with pytest.raises(BadSettings, match="--pipeline digits: not kept; there are churn"):
        run("query", "--config", config(), "--key", "x", "--pipeline", "digits")
    with pytest.raises(BadSettings, match=r"audit.pipelines: nobody: no such pipeline; there are churn"):
        run("query", "--config", config(pipelines=["nobody"]), "--key", "x")
    with pytest.raises(BadSettings, match="has the scheme 'ftp'"):
        run("query", "--config", config(store="ftp://x"), "--key", "x")


def test_an_empty_trail_is_no_error(config, tmp_path):
    assert ask(Trail(World(tmp_path / "new", Topic()).trail.objects, "other"), b"x") == []
