"""`inference-worker score`: one job over files, with a model of the store."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from app.embed import MAX_ROWS, digests_of, page_of, scorer_of
from app.errors import BadSettings, ModelMissing, NotReachable, StorageUnavailable
from app.models.cpu_quota import cpu_quota
from app.models.model_store import ModelStore
from app.models.runtime import RuntimePolicy
from app.observe.log import configure_logs
from app.pipeline.infer import OutputPolicy
from app.scoring.job import JobPolicy, ScoreJob, SoFar
from app.scoring.plan import PLAN_FILE, Plan, parsed_plan
from app.scoring.rows_in import CsvPolicy, CsvRows, ParquetRows, RowsFile
from app.scoring.rows_out import Format
from app.scoring.scorer import Scorer
from app.scoring.steps import Steps
from app.settings.reading import load_settings
from app.wiring.pipeline_steps import pipeline_steps
from app.wiring.score_places import SUFFIXES, FoundInput, answers_folder, found_inputs
from app.wiring.stores import named_store

Told = Callable[[int, int, int | None], None]  # rows done, of them rejected, rows there are if that can be known
BadOutput = Literal["dead_letter", "clip", "stop"]


@dataclass(frozen=True, slots=True)
class ScoreOrder:
    """What `score` was asked for. version: None for the rollout's choice. output: None for the format of the input.

    bad_output: None for the pipeline's. pipeline: whose handler and fallback; None for the only one with the model.
    """

    source: str
    target: str
    model: str
    version: str | None
    key: str | None
    keep: tuple[str, ...]
    output: Format | None
    chunk_rows: int
    csv: CsvPolicy
    bad_output: BadOutput | None
    pipeline: str | None


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
    bad_output: BadOutput | None = None,
    multiline: bool = False,
    pipeline: str | None = None,
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
        bad_output,
        pipeline,
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


def score_files(order: ScoreOrder, store: str | None, settings_file: Path | None, told: Told) -> ScoreReport:
    """`inference-worker score`: a job from its beginning, or from where it was left.

    Raises StartupError (BadSettings, HandlerInvalid, ModelMissing …), which people have to mend, and
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
    steps = Steps()
    if settings_file is not None:
        settings = load_settings(settings_file)
        runtime = RuntimePolicy(cpu_quota(), max_rows=MAX_ROWS, providers=settings.models.providers)
        steps = pipeline_steps(settings, order.model, order.pipeline, models)
    elif order.pipeline is not None:
        raise BadSettings("--pipeline names one of the settings of --config, which is not given")
    if order.bad_output is not None:
        steps = replace(steps, outputs=OutputPolicy(order.bad_output))
    with _about_data():
        inputs = found_inputs(order.source)
        out = answers_folder(order.target, order.source)
        planned = out.read(PLAN_FILE)
    kind = _format_of(order.source, [found.file.name for found in inputs])
    asked = _asked(order, steps, inputs, order.output or kind)
    before = None if planned is None else parsed_plan(out.url, planned)
    if before is not None:
        before.check_same_job(out.url, asked)
    plan = before or _decided(asked, models, steps)
    page = page_of(plan.version, None if plan.rollout is None else json.dumps(plan.rollout))
    scorer = scorer_of(models, plan.model, page, plan.digests, runtime, steps)

    def tell(so_far: SoFar) -> None:
        told(so_far.done.answered + so_far.done.rejected, so_far.done.rejected, so_far.total)

    policy = JobPolicy(plan.key, plan.keep, plan.output, plan.chunk_rows)
    with _about_data():
        job = ScoreJob([_rows(kind, found, order.csv, scorer) for found in inputs], out, scorer, policy, tell)
        if before is None and not out.create(PLAN_FILE, plan.model_dump_json(indent=1).encode()):
            out.tidy()  # what was locked to write it: held on to, the folder aside would stay
            return _score_files(order, store, settings_file, told)  # another process began just now: its plan counts
        sums = job.run()
    versions = tuple(sorted(plan.digests, key=int))
    return ScoreReport(out.url, plan.model, versions, page.revision, len(inputs), sums.answered, sums.rejected)


def _asked(order: ScoreOrder, steps: Steps, inputs: Sequence[FoundInput], output: Format) -> Plan:
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
        bad_output=steps.outputs.bad_output,
        handler=steps.handler,
        fallback=steps.chain,
        rollout=None,
        digests={},
    )


def _decided(asked: Plan, models: ModelStore, steps: Steps) -> Plan:
    rollout = None if asked.version is not None else models.rollout(asked.model)
    digests = digests_of(models, asked.model, rollout or page_of(asked.version, None), steps)
    said = None if rollout is None else rollout.model_dump(mode="json")
    return asked.model_copy(update={"rollout": said, "digests": digests})


def _rows(kind: Format, found: FoundInput, csv: CsvPolicy, scorer: Scorer) -> RowsFile:
    if kind == "csv":
        return CsvRows(found.file.name, found.open, csv)
    return ParquetRows(found.file.name, found.open, scorer.categories)


def _format_of(source: str, names: Sequence[str]) -> Format:
    suffixes = {Path(name).suffix for name in names}
    if unknown := suffixes - SUFFIXES.keys():
        raise BadSettings(f"{source}: rows come as {' or '.join(SUFFIXES)}, not {', '.join(sorted(unknown)) or 'that'}")
    if len(suffixes) > 1:
        raise BadSettings(f"{source}: there are {' and '.join(sorted(suffixes))} files; one kind at a time")
    return SUFFIXES[suffixes.pop()]


@contextmanager
def _about_data() -> Iterator[None]:
    """No bucket for data is a wrong setting: the model is not what is missing."""
    try:
        yield
    except ModelMissing as exc:
        raise BadSettings(str(exc)) from exc
