"""What was read from the prediction topic, as columns. Junk in there is noted and left behind."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loadgen.decode import Decoder
from loadgen.input_log import Sampling
from loadgen.ledger import Lane, Outcomes
from loadgen.reading import Records
from loadgen.violations import Noted, Place, Violation

TOLERANCE = 1e-6  # probabilities are float32 numbers in double fields

FIELDS: Mapping[str, pa.DataType] = {
    "prediction": pa.int32(),
    "confidence": pa.float64(),
    "model_name": pa.string(),
    "model_version": pa.string(),
    "model_digest": pa.string(),
    "answered_by": pa.string(),
    "source_topic": pa.string(),
    "source_partition": pa.int32(),
    "source_offset": pa.int64(),
    "event_time": pa.int64(),
}
PROBABILITY = {"churn": ("probability", pa.float64()), "digits": ("probabilities", pa.list_(pa.float64()))}


def wanted_fields(pipeline: str, id_field: str) -> pa.Schema:
    """Return the fields every prediction of a pipeline must have."""
    return pa.schema([(id_field, pa.string()), PROBABILITY[pipeline], *FIELDS.items()])


@dataclass(frozen=True, slots=True)
class Answer:
    """Who answered, as predictions say it."""

    model: str
    version: str
    digest: str
    answered_by: str


class PredictionLog:
    """Collects the records of one prediction topic.

    Records wait undecoded until `hold` of them are there: decoding while a paced run is measured would
    delay reading.
    """

    def __init__(
        self,
        topic: str,
        decoder: Decoder,
        lane_of: Mapping[Lane, int],
        sampling: Sampling,
        *,
        id_field: str,
        hold: int,
    ) -> None:
        self._topic = topic
        self._decoder = decoder
        self._lane_of = lane_of
        self._sampling = sampling
        self._id_field = id_field
        self._hold = hold
        self._waiting: list[Records] = []
        self._waiting_records = 0
        self._parts: list[tuple[Outcomes, NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]] = []
        self._classes: list[NDArray[np.int32]] = []
        self._unreadable = Noted("unreadable_prediction")
        self._implausible = Noted("implausible_prediction")
        self.samples: list[tuple[Outcomes, pa.Table]] = []
        self.answers: Counter[Answer] = Counter()
        self.count = 0

    def add(self, records: Records) -> None:
        """Take in records of the topic. Raises RegistryFailed if a schema cannot be asked for."""
        if len(records) == 0:
            return
        self._waiting.append(records)
        self._waiting_records += len(records)
        self.count += len(records)
        if self._waiting_records >= self._hold:
            self.decode_waiting()

    def decode_waiting(self) -> None:
        """Decode what waits."""
        if not self._waiting:
            return
        values = [value for records in self._waiting for value in records.values]
        keys = pa.array([key for records in self._waiting for key in records.keys], pa.binary())
        partition = np.concatenate([records.partition for records in self._waiting])
        offset = np.concatenate([records.offset for records in self._waiting])
        appended = np.concatenate([records.timestamp_ms for records in self._waiting]).astype(np.float64)
        received = np.concatenate([np.full(len(records), records.received_ms) for records in self._waiting])
        self._waiting, self._waiting_records = [], 0
        decoded = self._decoder.decode(values)
        for row, why in decoded.unreadable:
            self._unreadable.note(Place(self._topic, int(partition[row]), int(offset[row]), why))
        rows, table = decoded.rows, decoded.columns
        ids = _array(table, self._id_field)
        outcomes = Outcomes(
            topic=self._topic,
            partition=partition[rows],
            offset=offset[rows],
            lane=self._lanes(table),
            source_offset=_array(table, "source_offset").to_numpy(),
            keys=keys.take(pa.array(rows)),
            ids=ids.cast(pa.binary()),
        )
        self._check_plausible(outcomes, table)
        event_time = _array(table, "event_time").to_numpy()
        self._parts.append((outcomes, event_time, appended[rows], received[rows]))
        self._classes.append(_array(table, "prediction").to_numpy())
        self._count_answers(table)
        self._keep_sample(outcomes, table)

    def _lanes(self, table: pa.Table) -> NDArray[np.int32]:
        partition = _array(table, "source_partition").to_numpy()
        topics = pc.dictionary_encode(_array(table, "source_topic"))
        lane = np.full(len(partition), -1, dtype=np.int32)
        indices = topics.indices.to_numpy()
        for index, topic in enumerate(topics.dictionary.to_pylist()):
            of_topic = {p: number for (name, p), number in self._lane_of.items() if name == topic}
            table_of = np.full(max(of_topic, default=-1) + 1, -1, dtype=np.int32)
            for each, number in of_topic.items():
                table_of[each] = number
            rows = np.flatnonzero((indices == index) & (partition >= 0) & (partition < len(table_of)))
            lane[rows] = table_of[partition[rows]]
        return lane

    def _check_plausible(self, outcomes: Outcomes, table: pa.Table) -> None:
        """Probabilities are probabilities, and confidence is that of the predicted class."""
        predicted = _array(table, "prediction").to_numpy()
        confidence = _array(table, "confidence").to_numpy()
        if "probability" in table.column_names:
            of_second = _array(table, "probability").to_numpy()
            probable = (of_second >= 0) & (of_second <= 1)
            expected = np.where(predicted == 1, of_second, 1.0 - of_second)
            good = probable & np.isin(predicted, (0, 1)) & (np.abs(confidence - expected) <= TOLERANCE)
        else:
            good = _plausible_rows(_array(table, "probabilities"), predicted, confidence)
        for row in np.flatnonzero(~good).tolist():
            self._implausible.note(outcomes.place(row, f"class {predicted[row]} with confidence {confidence[row]:.6g}"))

    def _count_answers(self, table: pa.Table) -> None:
        names = ["model_name", "model_version", "model_digest", "answered_by"]
        grouped = table.select(names).group_by(names).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            self.answers[Answer(*(row[name] for name in names))] += row["count_all"]

    def _keep_sample(self, outcomes: Outcomes, table: pa.Table) -> None:
        partition = _array(table, "source_partition").to_numpy()
        picked = np.flatnonzero(self._sampling.picks(partition, outcomes.source_offset))
        if len(picked):
            self.samples.append((_taken(outcomes, picked), table.take(pa.array(picked))))

    def outcomes(self) -> Outcomes:
        """All predictions so far that could be read."""
        self.decode_waiting()
        return joined_outcomes(self._topic, [part[0] for part in self._parts], with_ids=True)

    def times_ms(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """event_time, record timestamp and time of receipt of each prediction, in the order of `outcomes`."""
        self.decode_waiting()
        if not self._parts:
            nothing = np.empty(0, dtype=np.float64)
            return nothing, nothing, nothing
        return (
            np.concatenate([part[1] for part in self._parts]).astype(np.float64),
            np.concatenate([part[2] for part in self._parts]),
            np.concatenate([part[3] for part in self._parts]),
        )

    def classes(self) -> NDArray[np.int32]:
        """Return the predicted class of each prediction, in the order of `outcomes`."""
        return np.concatenate(self._classes) if self._classes else np.empty(0, dtype=np.int32)

    def violations(self) -> list[Violation]:
        """Return what was no prediction, or no plausible one."""
        return self._unreadable.violations() + self._implausible.violations()


def joined_outcomes(topic: str, parts: list[Outcomes], *, with_ids: bool) -> Outcomes:
    """Return the rows of all parts, one after the other."""
    binary = pa.array([], pa.binary())
    return Outcomes(
        topic=topic,
        partition=np.concatenate([np.empty(0, dtype=np.int32), *(part.partition for part in parts)]),
        offset=np.concatenate([np.empty(0, dtype=np.int64), *(part.offset for part in parts)]),
        lane=np.concatenate([np.empty(0, dtype=np.int32), *(part.lane for part in parts)]),
        source_offset=np.concatenate([np.empty(0, dtype=np.int64), *(part.source_offset for part in parts)]),
        keys=pa.concat_arrays([binary, *(part.keys for part in parts)]),
        ids=pa.concat_arrays([binary, *(part.ids for part in parts if part.ids is not None)]) if with_ids else None,
    )


def _taken(outcomes: Outcomes, rows: NDArray[np.int64]) -> Outcomes:
    return Outcomes(
        topic=outcomes.topic,
        partition=outcomes.partition[rows],
        offset=outcomes.offset[rows],
        lane=outcomes.lane[rows],
        source_offset=outcomes.source_offset[rows],
        keys=outcomes.keys.take(pa.array(rows)),
        ids=outcomes.ids.take(pa.array(rows)) if outcomes.ids is not None else None,
    )


def _plausible_rows(
    probabilities: pa.ListArray, predicted: NDArray[np.int32], confidence: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Per row: all within 0 to 1 and summing to 1, and confidence is the entry of the predicted class."""
    good = np.zeros(len(predicted), dtype=np.bool_)
    lengths = np.diff(probabilities.offsets.to_numpy())
    usable = np.flatnonzero((lengths > 0) & (predicted >= 0) & (predicted < lengths))
    flat = probabilities.values.to_numpy()
    starts = probabilities.offsets.to_numpy()[:-1]
    chosen = flat[starts[usable] + predicted[usable]]
    good[usable] = np.abs(chosen - confidence[usable]) <= TOLERANCE
    row_of = np.repeat(np.arange(len(predicted)), lengths)
    used = flat[starts[0] : starts[0] + len(row_of)] if len(predicted) else flat[:0]
    sums = np.bincount(row_of, weights=used, minlength=len(predicted))
    bad = np.bincount(row_of, weights=~((used >= 0) & (used <= 1)), minlength=len(predicted))
    result: NDArray[np.bool_] = good & (bad == 0) & (np.abs(sums - 1.0) <= 1e-3)
    return result


def _array(table: pa.Table, name: str) -> pa.Array:
    """Return a column as one array."""
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays([pa.array([], column.type), *column.chunks])
