"""What the surfaces see of the outside world. Adapters live in kafka/, models/ and observe/; wiring joins them."""

from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy.typing as npt

from app.facts import BatchScored, Committed, Pulse, Refused, Sample, Serving, ShadowCounted
from app.records import Batch, DeadLetter, IntArray, Origin, Predictions, Record, TopicPartition
from app.specs import InputSpec, Output

Tensors = Mapping[str, npt.NDArray[Any]]
TraceFacts = Mapping[str, str | int | float | bool | Sequence[str]]


class Model(Protocol):
    """One version of one model, loaded, verified and warm."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of model.onnx."""
        ...

    @property
    def event_schema(self) -> str:
        """Name of the reader schema."""
        ...

    @property
    def prediction_schema(self) -> str:
        """Name of the output schema."""
        ...

    @property
    def inputs(self) -> tuple[InputSpec, ...]: ...
    @property
    def outputs(self) -> tuple[Output, ...]: ...

    def run(self, tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
        """Score one batch.

        tensors: by input name, (n, …) of the dtype its InputSpec states, C-contiguous, finite, n >= 1.
        Returns by output name one array per entry of `outputs`, first axis n; row i answers row i.
        Raises ModelFailed if the model failed; then no row was scored.
        """
        ...

    def check(self) -> None:
        """Score the golden rows again. Raises ModelFailed if they fail or differ: the model itself is at fault."""
        ...


class RolloutArm(Protocol):
    """One of those who may answer."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...


class ModelChooser(Protocol):
    """One rollout page: which version answers a record is a function of its key and this page alone.

    Two pages are equal if they say the same.
    """

    @property
    def strategy(self) -> str: ...
    @property
    def revision(self) -> int: ...
    @property
    def previous(self) -> str | None:
        """The version that was stable before the one that is."""
        ...

    @property
    def arms(self) -> Sequence[RolloutArm]:
        """Who may answer, the first of them stable."""
        ...

    @property
    def versions(self) -> Sequence[str]:
        """Every version that has to be loaded and warm, without repetition, stable first."""
        ...

    def choose(self, keys: Sequence[bytes | None]) -> IntArray | None:
        """The arm of each record as an index into `arms`, (n,); None if the first answers all."""
        ...


class RolloutObserver(Protocol):
    """Told what becomes of rollout pages. Any thread."""

    def serving(self, fact: Serving) -> None: ...
    def rollout_failed(self, model: str, error: str, version: str | None) -> None:
        """A page, or this version that it needs, could not be read or used; error: the name of its kind."""
        ...


class ShadowObserver(Protocol):
    """Told what becomes of a shadow and of its rows. Any thread."""

    def shadow_counted(self, fact: ShadowCounted) -> None: ...
    def shadow_failed(self, version: str, error: str) -> None:
        """Its process was lost or could not do its work; error: the name of its kind."""
        ...


class SchemaSource(Protocol):
    """Where writer schemas come from: a directory of fingerprints or a registry of ids."""

    def by_header(self, header: bytes) -> str:
        """The JSON text of the writer schema that a record's header names.

        Raises DecodeFailed (unknown_schema), or SchemaRegistryUnavailable when nothing
        can be known now.
        """
        ...


class AssignmentListener(Protocol):
    """Told of assignment changes, on the stream thread, inside `Source.poll` and `Source.close`."""

    def on_assigned(self, sources: Set[TopicPartition]) -> None: ...
    def on_revoked(self, sources: Set[TopicPartition]) -> None:
        """These go to another member after this returns: finish and commit their work now, or drop it."""
        ...

    def on_lost(self, sources: Set[TopicPartition]) -> None:
        """These are already another member's: commit nothing of them."""
        ...


class Source(Protocol):
    """Where records come from."""

    @property
    def owned(self) -> Set[TopicPartition]: ...
    @property
    def joined(self) -> bool:
        """Whether the group has answered at least once, with an assignment or an empty one."""
        ...

    def subscribe(self, listener: AssignmentListener) -> None:
        """Join the group; the listener hears of assignments while polling."""
        ...

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """What is there, up to `max_records`; waits up to `timeout_s` for a first record, never for more."""
        ...

    def gather(self, max_records: int, timeout_s: float) -> list[Record]:
        """What comes within `timeout_s`, up to `max_records`; sooner once there are so many."""
        ...

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def hold(self, sources: Set[TopicPartition]) -> None:
        """Stop fetching these partitions, whatever `resume` says, until they are released or taken away."""
        ...

    def release(self, sources: Set[TopicPartition]) -> None:
        """Fetch held partitions again."""
        ...

    def rewind(self, points: Mapping[TopicPartition, int]) -> None:
        """Read these partitions again from these offsets. Raises BrokerUnavailable."""
        ...

    def positions(self) -> dict[TopicPartition, int]: ...
    def starts(self, sources: Set[TopicPartition]) -> dict[TopicPartition, int]:
        """Where the group stands, or will start, in these partitions; those not known are absent."""
        ...

    def committed(self, sources: Set[TopicPartition]) -> dict[TopicPartition, int]:
        """The group's offsets; partitions without one are absent. Raises BrokerUnavailable."""
        ...

    def notes(self, sources: Set[TopicPartition]) -> list[str]:
        """What was committed along with the offsets of these partitions, as far as that is known."""
        ...

    def end_offsets(self) -> dict[TopicPartition, int]: ...
    def unread(self) -> int:
        """How many records are there at most, as far as is known, that were not given yet and are not held.

        Raises nothing that would be tried again.
        """
        ...

    def close(self) -> None: ...


class Summaries(Protocol):
    """What is told of predictions, to those who watch the model."""

    def to_commit(self, *, at_once: bool) -> Sequence[tuple[bytes, bytes]]:
        """Key and value of each summary to be delivered now, and once: along with what it is about.

        In a transaction these are its last records. at_once: there may be no other time.
        """
        ...


class Sink(Protocol):
    """Where predictions and dead letters go, and what makes them and the offsets durable together.

    Nothing here waits longer than a bound of its own, so that the consumer can be polled meanwhile.
    """

    def has_room(self) -> bool:
        """Whether another batch may be delivered now."""
        ...

    def deliver(self, predictions: Predictions, dead_letters: Sequence[DeadLetter]) -> None:
        """Take over a batch's outputs. Call only while there is room. Raises Aborted, Fenced, DeliveryFailed."""
        ...

    def settle(self, offsets: Mapping[TopicPartition, int], note: str, *, idle: bool) -> bool:
        """Make what was delivered, and these next offsets, durable if that is due; `idle` means nothing else waits.

        note: kept with the offsets, for whoever reads on from them. True once everything delivered before is
        safe and the offsets are committed or sure to be. False: ask again. Raises Aborted when all of it must be
        delivered again, InDoubt when perhaps it must, and Fenced, DeliveryFailed.
        """
        ...

    def settle_now(self, offsets: Mapping[TopicPartition, int], note: str, within_s: float) -> bool:
        """The same at once: True only if the offsets are committed when it returns."""
        ...

    def abandon(self) -> None:
        """Undo what was delivered since the last settlement, as far as that can be; it will come again."""
        ...

    def forget(self, sources: Set[TopicPartition]) -> None:
        """These partitions are no longer ours: commit nothing more of them."""
        ...

    def recovered(self) -> bool:
        """Whether the sink can be used; after an Aborted it tries to recover. Raises Fenced."""
        ...

    def close(self) -> None: ...


class OverdueCall(Protocol):
    """A client call that outlived its deadline."""

    @property
    def name(self) -> str: ...
    @property
    def since_s(self) -> float: ...


class Overdue(Protocol):
    """Knows whether a client call is stuck. Any thread may ask."""

    def overdue(self) -> OverdueCall | None: ...


class SourceObserver(Protocol):
    """Told where reading starts when the group does not say."""

    def offset_reset(self, reason: str, missed: int) -> None:
        """reason: "no_committed_offset" or "out_of_range"; then `missed` offsets were passed over."""
        ...


class TopicObserver(Protocol):
    """Told what changes about topics. Any thread."""

    def partitions_changed(self, topic: str) -> None: ...


class ProcessObserver(Protocol):
    """Told what several worker processes do, each known by its slot; on the supervisor's thread."""

    def started(self, slot: int, *, again: bool) -> None:
        """again: another process had this slot before."""
        ...

    def reported(self, slot: int, samples: Sequence[Sample]) -> None:
        """All metrics of the slot's process as they are now."""
        ...

    def refused(self, slot: int, last: Sequence[Refused]) -> None:
        """The last dead letters of the slot's process, oldest first; not told while there are none."""
        ...

    def ended(self, slot: int) -> None:
        """What its process counted stays counted; nothing else of it is true any more."""
        ...

    def counted(self, states: Mapping[str, int]) -> None:
        """State → how many slots are in it."""
        ...


class DeliveryObserver(Protocol):
    """Told what became of transactions."""

    def transaction(self, result: str) -> None:
        """result: "committed", "aborted", or "dropped" when only the broker knows."""
        ...


class OnlineObserver(Protocol):
    """Told what becomes of requests, on the event loop. Must not raise and must be quick."""

    def batch_scored(self, fact: BatchScored) -> None: ...
    def committed(self, fact: Committed) -> None:
        """These rows have their answers; nothing of it is kept anywhere."""
        ...


class Observer(SourceObserver, DeliveryObserver, Protocol):
    """Told what one pipeline does, on the stream thread. Must not raise and must be quick."""

    def batch_scored(self, fact: BatchScored) -> None: ...
    def committed(self, fact: Committed) -> None: ...
    def rebalanced(self, kind: str) -> None:
        """kind: "assigned", "revoked" or "lost"."""
        ...

    def revoked(self, sources: Set[TopicPartition]) -> None:
        """These partitions are no longer ours: remove what was exported about them."""
        ...

    def pulse(self, fact: Pulse) -> None: ...


class BatchTrace(Protocol):
    """What is recorded of one batch under way. One thread at a time; after its end nothing more is."""

    def current(self) -> AbstractContextManager[None]:
        """Within this block, logs name the batch; an error that leaves it is the batch's end."""
        ...

    def took(self, stage: str, started: float, seconds: float, facts: TraceFacts = ...) -> None:
        """A stage is over. started: by the performance counter."""
        ...

    def happened(self, what: str, facts: TraceFacts = ...) -> None: ...
    def known(self, facts: TraceFacts) -> None:
        """What is so of the whole batch."""
        ...

    def carried(self, predictions: Predictions, rows: IntArray) -> Predictions:
        """The same, with the trace contexts of their records. rows: of the batch, rising, one for each."""
        ...

    def delivering(self, predictions: int, dead_letters: int) -> AbstractContextManager[None]:
        """As `current`, while so many outputs are handed to the sink."""
        ...

    def dropped(self, why: str) -> None:
        """It ends here, and that is no error; its records come again."""
        ...


class BatchTracing(Protocol):
    """Follows those batches that are traced. On the stream thread; must not raise and must be quick."""

    def begin(self, batch: Batch, origin: Origin) -> BatchTrace | None:
        """None if this one is not traced."""
        ...

    def settled(self) -> None:
        """What was delivered is durable."""
        ...

    def undone(self, why: BaseException | None) -> None:
        """Nothing that is under way will be durable. why: None if no error is the reason."""
        ...
