"""A pipeline of the settings as `Steps`: files, a cluster or a program of one's own then answer as the worker does."""

from dataclasses import replace
from pathlib import Path

from app.avro.columns import reader_columns
from app.avro.schemas import SchemaDirectory
from app.errors import BadSettings
from app.models.model_store import ModelStore
from app.pipeline.infer import OutputPolicy
from app.scoring.steps import Steps
from app.settings.pipelines import Pipeline
from app.settings.reading import load_settings
from app.settings.root import Settings
from app.wiring.lanes import fallback_policy
from app.wiring.stores import settings_store


def steps_of(settings_file: str | Path, model: str, pipeline: str | None = None) -> Steps:
    """For `app.embed`: what a pipeline of these settings does beside its model.

    pipeline: its name; None for the only one with the model. Raises BadSettings, SchemaMissing and ModelMissing; a
    handler is imported later, where a version is loaded.
    """
    settings = load_settings(Path(settings_file))
    return pipeline_steps(settings, model, pipeline, settings_store(settings))


def pipeline_steps(settings: Settings, model: str, name: str | None, store: ModelStore) -> Steps:
    """The same of settings that were read. A model without a pipeline has nothing beside it."""
    found = [each for each in settings.pipelines if each.model == model and name in {None, each.name}]
    if name is not None and not found:
        raise BadSettings(f"no pipeline {name!r} with the model {model!r} is in the settings")
    steps = {each.name: _steps(settings, each, store) for each in found}
    if len(set(steps.values())) > 1:
        raise BadSettings(
            f"pipelines {', '.join(steps)} do not answer by {model!r} in the same way (handler, fallback, bad_output, "
            "schemas): name one"
        )
    return next(iter(steps.values()), Steps())


def _steps(settings: Settings, pipeline: Pipeline, store: ModelStore) -> Steps:
    outputs, retry_s = OutputPolicy(pipeline.bad_output), pipeline.fallback.retry_s
    steps = Steps(outputs=outputs, fallback=fallback_policy(pipeline), retry_s=retry_s)
    if pipeline.handler is None:
        return steps
    stable = store.manifest(pipeline.model, store.rollout(pipeline.model).stable)
    reader = SchemaDirectory(settings.schemas.directory).named(pipeline.event_schema or stable.event_schema)
    schema = stable.event_schema if pipeline.event_schema is None else None
    return replace(steps, handler=pipeline.handler, event=reader_columns(reader), event_schema=schema)
