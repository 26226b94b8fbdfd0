"""Everything one producing run needs to know, as plain data, and how it is put together and run."""

from dataclasses import dataclass

from loadgen.clock import WallClock
from loadgen.encode import Writer
from loadgen.event_sources import pipeline_named
from loadgen.event_stream import EventStream
from loadgen.kafka_client import KafkaOptions, Topics
from loadgen.pacing import Pace
from loadgen.poison import Poisoner, PoisonShare
from loadgen.producing import Extent, Produced, Progress, produce
from loadgen.schema_source import SchemaOptions, SchemaSource
from loadgen.schemas import CURRENT, AvroSchema
from loadgen.sending import KafkaSender
from loadgen.skew import KeyNumbers, Skew

# Below this a batch is worth less than the wait for it; above, the broker is better served by larger batches.
LINGER_ABOVE_PER_S = 20_000
LINGER_MS = 5.0

EVERY_KEY_NEW = Skew()
NO_POISON = PoisonShare(0.0)


@dataclass(frozen=True, slots=True)
class ProducePlan:
    """One producing run. Two runs of equal plans send equal events, their event_time aside."""

    pipeline: str
    topic: str
    kafka: KafkaOptions
    schemas: SchemaOptions
    pace: Pace
    extent: Extent
    seed: int = 7
    skew: Skew = EVERY_KEY_NEW
    poison: PoisonShare = NO_POISON
    writer_versions: str = CURRENT

    def expected_events(self) -> int | None:
        """How many events it will send; None if only its duration is known."""
        return self.extent.events if self.pace.unpaced else self.extent.paced_total(self.pace)

    def event_stream(self) -> EventStream:
        """Make the stream of its events.

        Registers the schemas if there is a registry; oldest first, as a compatible history grows.
        """
        pipeline = pipeline_named(self.pipeline, self.schemas.directory, self.seed)
        source = SchemaSource(self.schemas)
        try:
            versions = source.directory.writers(pipeline.event_schema, self.writer_versions)
            current = source.directory.current(pipeline.event_schema)
            identities = {
                schema.version: source.identity(self.topic, schema) for schema in [*sorted(versions, key=_age), current]
            }
        finally:
            source.close()
        everything = Writer(current, source.wire_format, identities[CURRENT])
        return EventStream(
            pipeline=pipeline,
            numbers=KeyNumbers(self.skew, self.seed),
            writers=[Writer(schema, source.wire_format, identities[schema.version]) for schema in versions],
            everything=everything,
            poison_share=self.poison,
            poisoner=Poisoner(current, source.wire_format, identities[CURRENT]),
        )

    def run(self, progress: Progress) -> Produced:
        """Send it all. Raises LoadgenError if that cannot be done."""
        Topics(self.kafka).partitions(self.topic)  # says so if the topic, or the broker, is not there
        busy = self.pace.unpaced or max(self.pace.rate, self.pace.peak) > LINGER_ABOVE_PER_S
        return produce(
            topic=self.topic,
            stream=self.event_stream(),
            sender=KafkaSender(self.kafka, self.topic, linger_ms=LINGER_MS if busy else 0.0),
            pace=self.pace,
            extent=self.extent,
            clock=WallClock(),
            progress=progress,
        )


def _age(schema: AvroSchema) -> float:
    """Return what sorts versions oldest first."""
    return float("inf") if schema.version == CURRENT else int(schema.version)
