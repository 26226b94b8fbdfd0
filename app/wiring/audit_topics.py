"""Which topics `audit run` reads, and what becomes of each one's records."""

from collections import Counter
from collections.abc import Iterator

from app.audit.masking import Mask, check_names
from app.audit.objects import TrailObjects
from app.audit.policy import ALL
from app.audit.rows import PipelineRows, kept_fields
from app.audit.trail import FEATURES, Trail
from app.audit.writer import Kept
from app.avro.schemas import Schema, SchemaDirectory
from app.clock import Clock
from app.errors import BadSettings
from app.pipeline.decode import Decoder
from app.settings.pipelines import Pipeline
from app.settings.root import Settings
from app.wiring.stores import settings_store
from app.wiring.wire_format import reading_format


def kept_pipelines(settings: Settings) -> list[Pipeline]:
    """Those whose predictions are kept. Raises BadSettings for a name that is none, and for a topic that two share."""
    wanted = settings.audit.pipelines
    known = {pipeline.name: pipeline for pipeline in settings.pipelines}
    if unknown := sorted(set(wanted or ()) - known.keys()):
        raise BadSettings(f"audit.pipelines: {', '.join(unknown)}: no such pipeline; there are {', '.join(known)}")
    kept = list(known.values()) if wanted is None else [known[name] for name in dict.fromkeys(wanted)]
    topics = Counter(pipeline.output_topic for pipeline in kept)
    if shared := [topic for topic, pipelines in topics.items() if pipelines > 1]:
        raise BadSettings(f"audit.pipelines: several write to {', '.join(shared)}: name one of them")
    return kept


def kept_topics(settings: Settings, objects: TrailObjects, clock: Clock) -> dict[str, Kept]:
    """By topic: predictions and, if features are kept, events. Raises BadSettings for what does not fit together."""
    audit, pipelines = settings.audit, kept_pipelines(settings)
    directory = SchemaDirectory(settings.schemas.directory)
    framing, schemas = reading_format(settings, directory, clock)
    predictions = {pipeline.name: _prediction_schema(settings, pipeline, directory) for pipeline in pipelines}
    events = {pipeline.name: _event_schema(settings, pipeline, directory) for pipeline in pipelines if audit.features}
    _check_features(settings, list(events.values()))
    kept_of_events = {
        name: audit.features_of([field["name"] for field in reader.fields]) for name, reader in events.items()
    }
    fields = [kept_fields(reader) for reader in predictions.values()]
    check_names(audit.mask, fields + [kept_fields(events[name], only) for name, only in kept_of_events.items()])
    mask = Mask(audit.mask, audit.secret())

    def rows(reader: Schema, only: frozenset[str] | None = None) -> PipelineRows:
        return PipelineRows(Decoder(framing, schemas, reader, clock), reader, mask, only)

    kept = {
        pipeline.output_topic: Kept(Trail(objects, pipeline.name), rows(predictions[pipeline.name]))
        for pipeline in pipelines
    }
    for topic, name in _event_topics(pipelines) if events else ():
        if topic in kept:
            raise BadSettings(f"audit.features: {topic} is a topic of several pipelines: name one in audit.pipelines")
        kept[topic] = Kept(Trail(objects, name, FEATURES), rows(events[name], kept_of_events[name]))
    return kept


def _event_topics(pipelines: list[Pipeline]) -> Iterator[tuple[str, str]]:
    """Each topic of events, and the pipeline that reads it."""
    return ((topic, pipeline.name) for pipeline in pipelines for topic in pipeline.input_topics)


def _check_features(settings: Settings, events: list[Schema]) -> None:
    """Raises BadSettings for a field that no event has: it would be missed years later."""
    known = {field["name"] for reader in events for field in reader.fields}
    if unknown := sorted(set(settings.audit.features) - known - {ALL}):
        raise BadSettings(f"audit.features: {', '.join(unknown)}: no such field; there are {', '.join(sorted(known))}")


def _prediction_schema(settings: Settings, pipeline: Pipeline, directory: SchemaDirectory) -> Schema:
    if pipeline.prediction_schema is not None:
        return directory.named(pipeline.prediction_schema)
    store = settings_store(settings)
    return directory.named(store.manifest(pipeline.model, store.rollout(pipeline.model).stable).prediction_schema)


def _event_schema(settings: Settings, pipeline: Pipeline, directory: SchemaDirectory) -> Schema:
    if pipeline.event_schema is not None:
        return directory.named(pipeline.event_schema)
    store = settings_store(settings)
    return directory.named(store.manifest(pipeline.model, store.rollout(pipeline.model).stable).event_schema)
