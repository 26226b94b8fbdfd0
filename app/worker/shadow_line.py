"""What goes over the line between a worker and its shadow process: frames of a kind, a length and so many bytes.

One way goes a batch's rows as one Arrow stream: the columns of their events, stable's answers, keys and places. Back
comes what became of them, a few numbers and one difference for each row compared.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.records import IntArray, TopicPartition
from app.worker.side_by_side import Answer

_HEAD = struct.Struct("<BI")
_COUNTS = struct.Struct("<4I2d")
_OURS = "shadow."  # no Avro name has a dot: no column of an event is called so
MOST_REPORT_BYTES = 4 * 1_048_576  # a million differences: more rows than any batch has


class LineBroken(Exception):
    """What came is no frame of ours."""


class Kind(IntEnum):
    """What a frame is. ROWS goes to the shadow; the others come from it."""

    ROWS = 1
    READY = 2
    COMPARED = 3
    REFUSED = 4


@dataclass(frozen=True, slots=True)
class ShadowRows:
    """Rows that stable answered, and whoever is beside it is to answer as well; every column has n rows.

    events: as decoded. sources, source: as in `records.Origin`.
    """

    events: pa.RecordBatch
    keys: pa.Array
    sources: tuple[TopicPartition, ...]
    source: IntArray
    offsets: IntArray
    timestamps_ms: IntArray
    answer: Answer
    version: str
    revision: int

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True, slots=True)
class Compared:
    """What became of one batch of rows. seconds: all it took. model_seconds: see `ShadowCounted`.

    unpublished: comparisons that by now are known not to be in the topic, of earlier batches too.

    differences: (agreed + disagreed,) the largest of each row, finite.
    """

    agreed: int
    disagreed: int
    failed: int
    unpublished: int
    seconds: float
    model_seconds: float
    differences: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Refused:
    """The shadow cannot do its work: the name of an error, and its words."""

    error: str
    message: str


def frame(kind: Kind, content: bytes | memoryview = b"") -> bytes:
    """One frame."""
    return _HEAD.pack(kind, len(content)) + content


class Frames:
    """Bytes as they come → whole frames."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._unread = bytearray()

    def feed(self, came: bytes) -> Iterator[tuple[Kind, bytes]]:
        """Every frame that is whole by now. Raises LineBroken, also for one longer than `most_bytes`."""
        self._unread += came
        while len(self._unread) >= _HEAD.size:
            kind, size = _HEAD.unpack_from(self._unread)
            if kind not in set(Kind) or size > self._most_bytes:
                raise LineBroken(f"a frame of kind {kind} and {size} bytes")
            if len(self._unread) < _HEAD.size + size:
                return
            content = bytes(self._unread[_HEAD.size : _HEAD.size + size])
            del self._unread[: _HEAD.size + size]
            yield Kind(kind), content


def rows_bytes(rows: ShadowRows) -> bytes:
    """The content of a ROWS frame."""
    answer = rows.answer
    ours: dict[str, pa.Array] = {
        "key": rows.keys,
        "source": pa.array(rows.source),
        "offset": pa.array(rows.offsets),
        "timestamp_ms": pa.array(rows.timestamps_ms),
        "numbers": pa.FixedSizeListArray.from_arrays(answer.numbers.reshape(-1), answer.numbers.shape[1]),
    }
    if answer.winner is not None:
        ours["winner"] = pa.array(answer.winner)
    said = {"sources": rows.sources, "labels": answer.labels, "version": rows.version, "revision": rows.revision}
    schema = pa.schema([*rows.events.schema, *(pa.field(_OURS + name, column.type) for name, column in ours.items())])
    schema = schema.with_metadata({_OURS: json.dumps(said)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays([*rows.events.columns, *ours.values()], schema=schema))
    content: bytes = sink.getvalue().to_pybytes()
    return content


def rows_of(content: bytes) -> ShadowRows:
    """The rows again. Raises LineBroken."""
    try:
        table = pa.ipc.open_stream(content).read_next_batch()
        table.validate(full=True)  # Arrow believes what a message says of its buffers, and reads beyond them
        said = json.loads(table.schema.metadata[_OURS.encode()])
        winner = table.column(f"{_OURS}winner").to_numpy() if f"{_OURS}winner" in table.schema.names else None
        numbers = table.column(f"{_OURS}numbers")
        return ShadowRows(
            events=table.select([name for name in table.schema.names if not name.startswith(_OURS)]),
            keys=table.column(f"{_OURS}key"),
            sources=tuple(TopicPartition(*source) for source in said["sources"]),
            source=table.column(f"{_OURS}source").to_numpy(),
            offsets=table.column(f"{_OURS}offset").to_numpy(),
            timestamps_ms=table.column(f"{_OURS}timestamp_ms").to_numpy(),
            answer=Answer(
                numbers.flatten().to_numpy().reshape(-1, numbers.type.list_size), tuple(said["labels"]), winner
            ),
            version=said["version"],
            revision=said["revision"],
        )
    except (pa.ArrowException, OSError, AttributeError, KeyError, TypeError, ValueError, StopIteration) as exc:
        raise LineBroken(f"rows that are none: {exc}") from exc


def compared_bytes(compared: Compared) -> bytes:
    """The content of a COMPARED frame."""
    rows = (compared.agreed, compared.disagreed, compared.failed, compared.unpublished)
    counts = _COUNTS.pack(*rows, compared.seconds, compared.model_seconds)
    return counts + compared.differences.astype("<f4").tobytes()


def compared_of(content: bytes, rows: int) -> Compared:
    """What became of `rows` rows. Raises LineBroken if it cannot be that."""
    try:
        agreed, disagreed, failed, unpublished, seconds, model_seconds = _COUNTS.unpack_from(content)
        differences = np.frombuffer(content, "<f4", offset=_COUNTS.size)
    except (struct.error, ValueError) as exc:
        raise LineBroken(f"a report that is none: {exc}") from exc
    adds_up = agreed + disagreed + failed == rows and agreed + disagreed == len(differences)
    possible = all(math.isfinite(took_s) and took_s >= 0 for took_s in (seconds, model_seconds))
    if not adds_up or not possible or not np.isfinite(differences).all():
        raise LineBroken(f"a report on {rows} rows that does not add up")
    return Compared(agreed, disagreed, failed, unpublished, seconds, model_seconds, differences)


def refused_bytes(refused: Refused) -> bytes:
    """The content of a REFUSED frame."""
    return json.dumps([refused.error, refused.message[:4096]]).encode()


def refused_of(content: bytes) -> Refused:
    """The refusal. Raises LineBroken."""
    try:
        error, message = json.loads(content)
    except (ValueError, TypeError) as exc:
        raise LineBroken(f"a refusal that is none: {exc}") from exc
    return Refused(str(error), str(message))
