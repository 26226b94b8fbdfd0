"""What was read from the input topics, as columns; of most values nothing is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loadgen.ledger import HEALTHY, Inputs, Lane
from loadgen.poison import POISON_HEADER
from loadgen.reading import Headers, Records

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which records a sample holds: one in `stride`.

    It depends on the place alone, so that inputs and outcomes agree without talking.
    """

    stride: int

    @staticmethod
    def of(total: int, wanted: int) -> "Sampling":
        """About `wanted` of `total` records; all of them if wanted is 0 or there are no more."""
        return Sampling(max(total // wanted, 1) if wanted else 1)

    def picks(self, partition: NDArray[np.int32], offset: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which places are in the sample."""
        # The multiplier keeps partitions from all starting with a sampled record.
        picked: NDArray[np.bool_] = (offset + partition.astype(np.int64) * 7919) % self.stride == 0
        return picked


class InputLog:
    """Collects the input records of some topics.

    kept: by (lane, offset), the value of each sampled record. poisoned: value and headers of each poison
    record.
    """

    def __init__(self, start: Mapping[Lane, int], sampling: Sampling) -> None:
        """start: per input partition, the first offset that counts."""
        self.lanes: Sequence[Lane] = sorted(start)
        self.lane_of: Mapping[Lane, int] = {lane: number for number, lane in enumerate(self.lanes)}
        self.kept: dict[tuple[int, int], bytes] = {}
        self.poisoned: dict[tuple[int, int], tuple[bytes | None, Headers]] = {}
        self._start = start
        self._sampling = sampling
        self._kinds: list[str] = []
        self._lane: list[NDArray[np.int32]] = []
        self._offset: list[NDArray[np.int64]] = []
        self._tombstone: list[NDArray[np.bool_]] = []
        self._poison: list[NDArray[np.int16]] = []
        self._keys: list[pa.Array] = []
        self.count = 0

    def add(self, topic: str, records: Records) -> None:
        """Take in records of one input topic, read with their headers."""
        if len(records) == 0:
            return
        lane_by_partition = np.array(
            [self.lane_of.get((topic, partition), -1) for partition in range(int(records.partition.max()) + 1)],
            dtype=np.int32,
        )
        lane = lane_by_partition[records.partition]
        poison = np.full(len(records), HEALTHY, dtype=np.int16)
        for row in [row for row, headers in enumerate(records.headers) if headers]:
            kind = _poison_kind(records.headers[row])
            if kind is not None:
                poison[row] = self._number(kind)
                place = (int(lane[row]), int(records.offset[row]))
                self.poisoned[place] = (records.values[row], records.headers[row])
        tombstone = np.array([value is None for value in records.values], dtype=np.bool_)
        sampled = self._sampling.picks(records.partition, records.offset) & ~tombstone & (poison == HEALTHY)
        for row in np.flatnonzero(sampled).tolist():
            self.kept[int(lane[row]), int(records.offset[row])] = records.values[row] or b""
        self._lane.append(lane)
        self._offset.append(records.offset)
        self._tombstone.append(tombstone)
        self._poison.append(poison)
        self._keys.append(pa.array(records.keys, pa.binary()))
        self.count += len(records)

    def inputs(self) -> Inputs:
        """Everything so far."""
        lane = _joined(self._lane, np.int32)
        offset = _joined(self._offset, np.int64)
        end = np.zeros(len(self.lanes), dtype=np.int64)
        np.maximum.at(end, lane, offset + 1)
        return Inputs(
            lanes=self.lanes,
            window=[(self._start[each], int(end[number])) for number, each in enumerate(self.lanes)],
            lane=lane,
            offset=offset,
            tombstone=_joined(self._tombstone, np.bool_),
            poison=_joined(self._poison, np.int16),
            poison_kinds=tuple(self._kinds),
            keys=pa.concat_arrays(self._keys) if self._keys else pa.array([], pa.binary()),
        )

    def _number(self, kind: str) -> int:
        if kind not in self._kinds:
            self._kinds.append(kind)
        return self._kinds.index(kind)


def _poison_kind(headers: Headers) -> str | None:
    for name, value in headers or []:
        if name == POISON_HEADER and value is not None:
            return value.decode("utf-8", "replace")
    return None


def _joined(parts: "list[NDArray[Scalar]]", dtype: type[Scalar]) -> "NDArray[Scalar]":
    return np.concatenate([np.empty(0, dtype=dtype), *parts])
