"""Composition of `score`: files and part files here or in a bucket, the model store, and one job over them.

Beside `wiring.py` because no worker needs any of it.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import pyarrow as pa

from app.embed import MAX_ROWS, page_of, scorer_of
from app.errors import BadSettings, ModelMissing, NotReachable, StorageUnavailable
from app.models.cpu_quota import cpu_quota
from app.models.data_bucket import DataBucket
from app.models.model_store import ModelStore
from app.models.runtime import RuntimePolicy
from app.models.store_access import SCHEMES, Scheme, StoreAccess, open_bucket
from app.observe.log import configure_logs
from app.pipeline.infer import OutputPolicy
from app.scoring.job import JobPolicy, ScoreJob, SoFar
from app.scoring.local_folder import Folder, LocalFolder
from app.scoring.plan import PLAN_FILE, InputFile, Plan, parsed_plan
from app.scoring.rows_in import CsvPolicy, CsvRows, OpenFile, ParquetRows, RowsFile
from app.scoring.rows_out import Format
from app.scoring.scorer import Scorer
from app.settings import Settings, load_settings
from app.wiring import named_store

Told = Callable[[int, int, int | None], None]  # rows done, of them rejected, rows there are if that can be known
BadOutput = Literal["dead_letter", "clip", "stop"]
SUFFIXES: Mapping[str, Format] = {".parquet": "parquet", ".csv": "csv"}


@dataclass(frozen=True, slots=True)
class ScoreOrder:
    """What `score` was asked for. version: None for the rollout's choice. output: None for the format of the input."""

    source: str
    target: str
    model: str
    version: str | None
    key: str | None
    keep: tuple[str, ...]
    output: Format | None
    chunk_rows: int
    csv: CsvPolicy
    outputs: OutputPolicy


def order_of(
    source: str,
    target: str,
    model: str,
    version: str | None,
    *,
    key: str | None,
    keep: Sequence[str],
    output: Format | None,
    chunk_rows: int,
    delimiter: str,
    missing: Sequence[str],
    bad_output: BadOutput,
    multiline: bool = False,
) -> ScoreOrder:
    """The order, from what a command line can say."""
    return ScoreOrder(
        source,
        target,
        model,
        version,
        key,
        tuple(keep),
        output,
        chunk_rows,
        CsvPolicy(delimiter, tuple(missing), multiline),
        OutputPolicy(bad_output),
    )


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """What a job came to, earlier starts included. revision: of the rollout, 0 if a version was asked for."""

    out: str
    model: str
    versions: tuple[str, ...]
    revision: int
    files: int
    answered: int
    rejected: int


@dataclass(frozen=True, slots=True)
class _Input:
    """A file of rows and how it is opened."""

    file: InputFile
    open: OpenFile


def score_files(order: ScoreOrder, store: str | None, settings_file: Path | None, told: Told) -> ScoreReport:
    """`inference-worker score`: a job from its beginning, or from where it was left.

    Raises StartupError (BadSettings, SchemaIncompatible, ModelMissing …), which people have to mend, and
    StorageUnavailable, InputDamaged, ModelFailed: what is done stays, and the same order goes on with it.
    """
    try:
        return _score_files(order, store, settings_file, told)
    except NotReachable as exc:  # not a bad start, at any time: schedulers try again what is not one
        raise StorageUnavailable(str(exc)) from exc


def _score_files(order: ScoreOrder, store: str | None, settings_file: Path | None, told: Told) -> ScoreReport:
    configure_logs("info", "console")
    models = named_store(store, settings_file)
    runtime = RuntimePolicy(intra_op_threads=cpu_quota(), max_rows=MAX_ROWS)
    if settings_file is not None:
        settings = load_settings(settings_file)
        runtime = RuntimePolicy(cpu_quota(), max_rows=MAX_ROWS, providers=settings.models.providers)
        _check_no_handler(settings, order.model)
    with _about_data():
        inputs = _inputs(order.source)
        out = _folder(order.target, order.source)
        planned = out.read(PLAN_FILE)
    kind = _format_of(order.source, [found.file.name for found in inputs])
    asked = _asked(order, inputs, order.output or kind)
    before = None if planned is None else parsed_plan(out.url, planned)
    if before is not None:
        before.check_same_job(out.url, asked)
    plan = before or _decided(asked, models)
    page = page_of(plan.version, None if plan.rollout is None else json.dumps(plan.rollout))
    scorer = scorer_of(models, plan.model, page, plan.digests, runtime, order.outputs)

    def tell(so_far: SoFar) -> None:
        told(so_far.done.answered + so_far.done.rejected, so_far.done.rejected, so_far.total)

    policy = JobPolicy(plan.key, plan.keep, plan.output, plan.chunk_rows)
    with _about_data():
        job = ScoreJob([_rows(kind, found, order.csv, scorer) for found in inputs], out, scorer, policy, tell)
        if before is None and not out.create(PLAN_FILE, plan.model_dump_json(indent=1).encode()):
            return _score_files(order, store, settings_file, told)  # another process began just now: its plan counts
        sums = job.run()
    versions = tuple(sorted(plan.digests, key=int))
    return ScoreReport(out.url, plan.model, versions, page.revision, len(inputs), sums.answered, sums.rejected)


def _check_no_handler(settings: Settings, model: str) -> None:
    """Raises BadSettings if these settings give the model's answers by a handler: files would get others."""
    for pipeline in settings.pipelines:
        if pipeline.model == model and pipeline.handler is not None:
            raise BadSettings(
                f"pipelines.{pipeline.name}.handler: {pipeline.handler} makes the answers of {model!r} in the stream "
                "and over REST, and `score` has no handlers: its answers would be others. With --store in place of "
                "--config it scores by the manifest alone"
            )


def _asked(order: ScoreOrder, inputs: Sequence[_Input], output: Format) -> Plan:
    """What is asked for; who answers is not decided yet."""
    return Plan(
        model=order.model,
        version=order.version,
        files=tuple(found.file for found in inputs),
        key=order.key,
        keep=order.keep,
        output=output,
        chunk_rows=order.chunk_rows,
        delimiter=order.csv.delimiter,
        missing=order.csv.missing,
        multiline=order.csv.multiline,
        bad_output=order.outputs.bad_output,
        rollout=None,
        digests={},
    )


def _decided(asked: Plan, models: ModelStore) -> Plan:
    rollout = None if asked.version is not None else models.rollout(asked.model)
    page = rollout or page_of(asked.version, None)
    digests = {arm.version: models.manifest(asked.model, arm.version).model_digest for arm in page.arms}
    said = None if rollout is None else rollout.model_dump(mode="json")
    return asked.model_copy(update={"rollout": said, "digests": digests})


def _rows(kind: Format, found: _Input, csv: CsvPolicy, scorer: Scorer) -> RowsFile:
    if kind == "csv":
        return CsvRows(found.file.name, found.open, csv)
    return ParquetRows(found.file.name, found.open, scorer.categories)


# ---------------------------------------------------------------------------------------- here, or in a bucket


def _inputs(source: str) -> list[_Input]:
    """The file, or every file below a folder but those whose path has a part that begins with "_" or "."."""
    scheme = _scheme(source)
    found = list(_local_inputs(_local(source)) if scheme is None else _bucket_inputs(source, scheme))
    if not found:
        raise BadSettings(f"{source}: there are no {' or '.join(SUFFIXES)} files")
    return found


def _local_inputs(path: Path) -> Iterator[_Input]:
    if not path.exists():
        raise BadSettings(f"there is no {path}")
    below = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in below:
        if file.is_file() and (file == path or _counts(file.relative_to(path).as_posix())):
            facts = file.stat()
            name = str(file)
            yield _Input(
                InputFile(name=name, size=facts.st_size, state=str(facts.st_mtime_ns)), partial(pa.OSFile, name)
            )


def _bucket_inputs(source: str, scheme: Scheme) -> Iterator[_Input]:
    """Below a prefix, or the one object of that name."""
    is_file = Path(source).suffix in SUFFIXES
    prefix, _, only = source.rpartition("/") if is_file else (source.rstrip("/"), "", "")
    bucket = _bucket(prefix, scheme)
    for stored in bucket.stored():
        if stored.name == only if is_file else _counts(stored.name):
            file = InputFile(name=f"{prefix}/{stored.name}", size=stored.size, state=stored.state)
            yield _Input(file, partial(bucket.open, stored.name))


def _counts(name: str) -> bool:
    return Path(name).suffix in SUFFIXES and not any(part.startswith(("_", ".")) for part in name.split("/"))


def _format_of(source: str, names: Sequence[str]) -> Format:
    suffixes = {Path(name).suffix for name in names}
    if unknown := suffixes - SUFFIXES.keys():
        raise BadSettings(f"{source}: rows come as {' or '.join(SUFFIXES)}, not {', '.join(sorted(unknown)) or 'that'}")
    if len(suffixes) > 1:
        raise BadSettings(f"{source}: there are {' and '.join(sorted(suffixes))} files; one kind at a time")
    return SUFFIXES[suffixes.pop()]


def _folder(target: str, source: str) -> Folder:
    scheme = _scheme(target)
    if scheme is not None:
        if f"{target.rstrip('/')}/".startswith(f"{source.rstrip('/')}/"):
            raise BadSettings(f"{target} is within {source}: its answers would be rows of the next job")
        return _BucketFolder(_bucket(target.rstrip("/"), scheme))
    path = _local(target)
    if _scheme(source) is None and path.is_relative_to(_local(source)):
        raise BadSettings(f"{path} is within {_local(source)}: its answers would be rows of the next job")
    return LocalFolder(path)


class _BucketFolder:
    """A `Folder` in a bucket."""

    def __init__(self, bucket: DataBucket) -> None:
        self._bucket = bucket
        self.url = bucket.url

    def names(self) -> set[str]:
        return self._bucket.names()

    def read(self, name: str) -> bytes | None:
        found = self._bucket.read(name)
        return None if found is None else found.content

    def create(self, name: str, content: bytes | pa.Buffer) -> bool:
        return self._bucket.put_new(name, content)

    def put(self, name: str, content: bytes | pa.Buffer) -> None:
        self._bucket.put_over(name, content)

    def tidy(self) -> None:
        """A bucket shows no object before it is whole, and keeps nothing else of it."""


def _bucket(url: str, scheme: Scheme) -> DataBucket:
    return DataBucket(open_bucket(url, scheme, StoreAccess()), url)


def _scheme(url: str) -> Scheme | None:
    scheme, separator, _ = url.partition("://")
    if not separator or scheme == "file":
        return None
    if scheme not in SCHEMES:
        allowed = ", ".join(f"{known}://" for known in ("file", *SCHEMES))
        raise BadSettings(f"{url!r} has the scheme {scheme!r}, allowed are {allowed}")
    return scheme


def _local(url: str) -> Path:
    path = unquote(url.removeprefix("file://")) if url.startswith("file://") else url
    return Path(path).resolve()


@contextmanager
def _about_data() -> Iterator[None]:
    """No bucket for data is a wrong setting: the model is not what is missing."""
    try:
        yield
    except ModelMissing as exc:
        raise BadSettings(str(exc)) from exc
