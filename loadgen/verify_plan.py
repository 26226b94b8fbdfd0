"""Everything one verification needs to know, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass

from loadgen.errors import BadOption
from loadgen.kafka_client import KafkaOptions, Topics
from loadgen.schema_source import SchemaOptions

Offsets = Mapping[str, Mapping[int, int]]  # topic to partition to offset


@dataclass(frozen=True, slots=True)
class VerifyPlan:
    """What is verified, and against what.

    accepted_reasons: reasons for which a healthy record may be dead-lettered. store: where the models are,
    or None to leave scores unchecked. sample: how many predictions to score anew, 0 for all. quiet_s:
    nothing new for so long is the end; settle_s: the same once every input has its outcome, to see a late
    duplicate.
    """

    pipeline: str
    input_topics: tuple[str, ...]
    prediction_topic: str
    dead_letter_topic: str
    kafka: KafkaOptions
    schemas: SchemaOptions
    seed: int = 7
    at_least_once: bool = False
    accepted_reasons: frozenset[str] = frozenset()
    store: str | None = None
    sample: int = 500
    tolerance: float = 1e-5
    min_accuracy: float | None = None
    timeout_s: float = 120.0
    quiet_s: float = 5.0
    settle_s: float = 1.0

    def __post_init__(self) -> None:
        if min(self.timeout_s, self.quiet_s, self.settle_s) <= 0:
            raise BadOption("--timeout, --quiet and --settle: seconds, more than 0")
        if self.sample < 0:
            raise BadOption("--sample: 0 (all) or more")
        if not self.input_topics:
            raise BadOption("--input: at least one topic")

    @property
    def topics(self) -> tuple[str, ...]:
        """All topics it reads."""
        return (*self.input_topics, self.prediction_topic, self.dead_letter_topic)

    def first_offsets(self) -> Offsets:
        """Return the beginning of every topic."""
        topics = Topics(self.kafka)
        return {topic: topics.first_offsets(topic) for topic in self.topics}

    def end_offsets(self) -> Offsets:
        """Return the end of every topic as it is now."""
        topics = Topics(self.kafka)
        return {topic: topics.end_offsets(topic) for topic in self.topics}
