"""What a run proved wrong: closed kinds, counted, with the first few places of each."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "lost",
    "doubled",
    "phantom",
    "out_of_order",
    "key_changed",
    "id_changed",
    "event_time_changed",
    "unreadable_prediction",
    "implausible_prediction",
    "unreadable_dead_letter",
    "wrong_reason",
    "poison_predicted",
    "healthy_dead_lettered",
    "dead_letter_altered",
    "wrong_digest",
    "wrong_score",
    "model_not_found",
    "low_accuracy",
]

MEANINGS: dict[Kind, str] = {
    "lost": "an input record has neither a prediction nor a dead letter",
    "doubled": "an input record has more than one outcome",
    "phantom": "an outcome names an input record that does not exist",
    "out_of_order": "source offsets do not increase within one output partition",
    "key_changed": "the outcome's key is not the input's",
    "id_changed": "the prediction's id is not its key",
    "event_time_changed": "the prediction's event_time is not the event's",
    "unreadable_prediction": "a record of the prediction topic is no prediction",
    "implausible_prediction": "a probability outside 0 to 1, or a class that does not fit its probability",
    "unreadable_dead_letter": "a dead letter does not say what it is about, or gives an unknown reason",
    "wrong_reason": "a poison record was dead-lettered for another reason",
    "poison_predicted": "a poison record was predicted",
    "healthy_dead_lettered": "a healthy record was dead-lettered",
    "dead_letter_altered": "a dead letter's value or headers are not the input's",
    "wrong_digest": "model_digest is not that of the model in the store",
    "wrong_score": "the prediction is not what the model says for this event",
    "model_not_found": "the model store lacks the version a prediction names",
    "low_accuracy": "fewer predictions agree with the truth than asked for",
}

EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Place:
    """A record, and what is wrong with it."""

    topic: str
    partition: int
    offset: int
    detail: str = ""

    def __str__(self) -> str:
        return f"({self.topic}, {self.partition}, {self.offset})" + (f" {self.detail}" if self.detail else "")


@dataclass(frozen=True, slots=True)
class Violation:
    """One kind of wrong. count: all of them. examples: the first few, in topic order."""

    kind: Kind
    count: int
    examples: tuple[Place, ...]

    @staticmethod
    def found(kind: Kind, count: int, places: Iterable[Place]) -> "list[Violation]":
        """Return a list of one, or of none if the count is 0. Only the first few places are looked at."""
        if not count:
            return []
        examples = []
        for place in places:
            examples.append(place)
            if len(examples) == EXAMPLES:
                break
        return [Violation(kind, count, tuple(examples))]


class Noted:
    """Counts wrong places of one kind, keeps the first few: a topic full of junk must not fill the memory."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._count = 0
        self._places: list[Place] = []

    def note(self, place: Place) -> None:
        """One more."""
        self._count += 1
        if len(self._places) < EXAMPLES:
            self._places.append(place)

    def violations(self) -> list[Violation]:
        """Return a list of one, or of none."""
        return Violation.found(self._kind, self._count, self._places)
