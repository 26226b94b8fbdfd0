"""What the writer reads: the consumer of the topics that are kept, as the writer needs it."""

from collections.abc import Mapping, Set
from typing import Protocol

from app.ports import AssignmentListener
from app.records import Record, TopicPartition


class RecordSource(Protocol):
    """The consumer of these topics, committed records only; records of a partition come in order."""

    def subscribe(self, listener: AssignmentListener) -> None:
        """Join the group; the listener hears of assignments inside `gather`."""
        ...

    def gather(self, max_records: int, timeout_s: float) -> list[Record]:
        """What comes until there are so many, or the time is over."""
        ...

    def pause(self) -> None:
        """Read nothing until `resume`."""
        ...

    def resume(self) -> None:
        """Read again what is not held."""
        ...

    def hold(self, sources: Set[TopicPartition]) -> None:
        """Read nothing of these until `read_from`."""
        ...

    def read_from(self, source: TopicPartition, offset: int | None) -> None:
        """Read an owned partition from here, None: from its earliest record, and no longer hold it.

        Records given from now on are from there. Raises BrokerUnavailable if that cannot be done now.
        """
        ...

    def positions(self) -> dict[TopicPartition, int]:
        """Where the next read of each owned partition would start."""
        ...

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell the group. For whoever looks at its lag; a failure is no error."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...
