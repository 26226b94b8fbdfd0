"""What was read from the dead-letter topic: what each is about, and the reason it gives. They are few."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from loadgen.ledger import Lane, Outcomes
from loadgen.poison import POISON_HEADER
from loadgen.reading import Headers, Records
from loadgen.violations import Noted, Place, Violation

TOPIC_HEADER = "__connect.errors.topic"
PARTITION_HEADER = "__connect.errors.partition"
OFFSET_HEADER = "__connect.errors.offset"
REASON_HEADER = "inference.reason"

CLOSED_REASONS = frozenset(
    {
        "bad_frame",
        "unknown_schema",
        "unsupported_schema",
        "truncated",
        "trailing_bytes",
        "bad_utf8",
        "bad_index",
        "oversized",
        "out_of_range",
        "unknown_category",
        "missing_value",
        "not_finite",
        "bad_shape",
        "model_error",
        "bad_output",
        "expired",
    }
)
MAX_OFFSET = 2**63 - 1


class DeadLetterLog:
    """Collects the records of one dead-letter topic, read with their headers."""

    def __init__(self, topic: str, lane_of: Mapping[Lane, int]) -> None:
        self._topic = topic
        self._lane_of = lane_of
        self._partition: list[int] = []
        self._offset: list[int] = []
        self._lane: list[int] = []
        self._source_offset: list[int] = []
        self._keys: list[bytes | None] = []
        self._unreadable = Noted("unreadable_dead_letter")
        self._letters: list[tuple[bytes | None, Headers]] = []
        self.reasons: list[str] = []
        self.count = 0

    def add(self, records: Records) -> None:
        """Take in records of the topic."""
        self.count += len(records)
        for row, headers in enumerate(records.headers):
            place = Place(self._topic, int(records.partition[row]), int(records.offset[row]))
            # The last one counts: a record that was dead-lettered before carries older ones in front.
            said = {name: value.decode("utf-8", "replace") for name, value in headers or [] if value is not None}
            reason = said.get(REASON_HEADER, "")
            partition, offset = said.get(PARTITION_HEADER, ""), said.get(OFFSET_HEADER, "")
            if reason not in CLOSED_REASONS or not _number(partition) or not _number(offset):
                why = f"reason {reason[:40]!r} of partition {partition[:20]!r} offset {offset[:20]!r}"
                self._unreadable.note(Place(place.topic, place.partition, place.offset, why))
                continue
            lane = self._lane_of.get((said.get(TOPIC_HEADER, ""), int(partition)), -1)
            self._partition.append(place.partition)
            self._offset.append(place.offset)
            self._lane.append(lane)
            self._source_offset.append(int(offset))
            self._keys.append(records.keys[row])
            self._letters.append((records.values[row], headers))
            self.reasons.append(reason)

    def outcomes(self) -> Outcomes:
        """All dead letters so far that could be read."""
        return Outcomes(
            topic=self._topic,
            partition=np.array(self._partition, dtype=np.int32),
            offset=np.array(self._offset, dtype=np.int64),
            lane=np.array(self._lane, dtype=np.int32),
            source_offset=np.array(self._source_offset, dtype=np.int64),
            keys=pa.array(self._keys, pa.binary()),
            ids=None,
        )

    def counted(self) -> dict[str, int]:
        """How many dead letters gave each reason."""
        return dict(sorted(Counter(self.reasons).items()))

    def violations(self, poisoned: Mapping[tuple[int, int], tuple[bytes | None, Headers]]) -> list[Violation]:
        """Return what could not be read, and letters about poison that changed on the way.

        poisoned: the poison records as they were, by (lane, offset).
        """
        altered = []
        for row, (value, headers) in enumerate(self._letters):
            was = poisoned.get((self._lane[row], self._source_offset[row]))
            if was is None or self.reasons[row] == "oversized":  # which carries no payload
                continue
            if value != was[0] or _poison(headers) != _poison(was[1]):
                altered.append(Place(self._topic, self._partition[row], self._offset[row]))
        return [
            *self._unreadable.violations(),
            *Violation.found("dead_letter_altered", len(altered), altered),
        ]


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= MAX_OFFSET


def _poison(headers: Headers) -> bytes | None:
    return dict(headers or []).get(POISON_HEADER)
