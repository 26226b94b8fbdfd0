"""What a pipeline says of its own predictions: how they are added up, and how that is written."""

from collections.abc import Mapping

from app.avro.record_writer import RecordWriter
from app.avro.schemas import SchemaDirectory
from app.models.manifest import NumberReference, Reference
from app.pipeline.summary.plan import SummaryPlan
from app.ports import Model
from app.settings.pipelines import Pipeline
from app.settings.root import Settings
from app.wiring.wire_format import SUMMARY_SCHEMA, written_header


def summary_plan(
    pipeline: Pipeline, model: Model, references: Mapping[str, Reference], *, with_features: bool
) -> SummaryPlan | None:
    """How one version's predictions are added up. with_features: False if a handler makes features of its own."""
    monitoring = pipeline.monitoring
    if monitoring.summary_topic is None:
        return None
    edges = {field: found.bins for field, found in references.items() if isinstance(found, NumberReference)}
    return SummaryPlan(pipeline.name, model, edges, monitoring.low_confidence, with_features=with_features)


def summary_writer(settings: Settings, pipeline: Pipeline, directory: SchemaDirectory) -> RecordWriter | None:
    """Framed as the predictions are. Raises SchemaMissing, also if the registry lacks the summary topic's schema."""
    topic = pipeline.monitoring.summary_topic
    if topic is None:
        return None
    schema = directory.named(SUMMARY_SCHEMA)
    return RecordWriter(written_header(settings, topic, schema), schema)
