"""The job every peer does for an event, by the libraries users take first: fastavro, NumPy, ONNX Runtime.

Imports nothing else of the load generator, so that it runs in any environment that has those three. Settings come
from the environment, BENCH_…; `loadgen.bench.contenders` sets them.
"""

import io
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import fastavro
import fastavro.schema
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

# What a first version sends: who, the answer, and by which model. The worker's prediction has fifteen fields.
PREDICTION: dict[str, Any] = {
    "type": "record",
    "name": "Prediction",
    "fields": [
        {"name": "customer_id", "type": "string"},
        {"name": "will_churn", "type": "boolean"},
        {"name": "probability", "type": "double"},
        {"name": "model_version", "type": "string"},
        {"name": "predicted_at", "type": "long"},
    ],
}
SINGLE_OBJECT = b"\xc3\x01"
HEADER_SIZE = 10  # the marker and an 8-byte fingerprint

Matrix = NDArray[np.float32]
Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """What one run is told.

    batch: the most records handled together. wait_s: for a batch to fill. linger_ms: of the producer.
    commit_s: between two commits. model: the folder of a model version.
    """

    bootstrap: str
    input: str
    output: str
    group: str
    model: Path
    schemas: Path
    batch: int
    wait_s: float
    linger_ms: float
    commit_s: float

    @staticmethod
    def from_environment() -> "PeerSettings":
        """Read BENCH_…; a missing name is a KeyError: these scripts are run by the bench."""
        told = {name.removeprefix("BENCH_").lower(): value for name, value in os.environ.items()}
        return PeerSettings(
            bootstrap=told["bootstrap"],
            input=told["input"],
            output=told["output"],
            group=told["group"],
            model=Path(told["model"]),
            schemas=Path(told["schemas"]),
            batch=int(told["batch"]),
            wait_s=float(told["wait_s"]),
            linger_ms=float(told["linger_ms"]),
            commit_s=float(told["commit_s"]),
        )


class Model:
    """One version from the model store, run on one thread."""

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.version = str(manifest["version"])
        features = {feature["field"]: feature for feature in manifest["inputs"][0]["features"]}
        self._total_charges_default = float(features["total_charges"]["missing"]["impute"])
        plans = features["plan"]["categories"]
        self._one_hot = {plan: tuple(float(plan == other) for other in plans) for plan in plans}
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(
            (folder / "model.onnx").read_bytes(), options, providers=["CPUExecutionProvider"]
        )

    def features(self, events: Sequence[Event]) -> Matrix:
        """(n, 8) float32: five numbers, then the plan one-hot."""
        default, one_hot = self._total_charges_default, self._one_hot
        rows = [
            (
                event["age"],
                event["income"],
                event["tenure_months"],
                event["monthly_charges"],
                default if event["total_charges"] is None else event["total_charges"],
                *one_hot[event["plan"]],
            )
            for event in events
        ]
        return np.array(rows, np.float32)

    def probabilities(self, x: Matrix) -> Matrix:
        """(n,) float32, of churn."""
        scores: Matrix = self._session.run(["probabilities"], {"X": x})[0][:, 1]
        return scores


class Job:
    """Event bytes in, prediction bytes out."""

    def __init__(self, settings: PeerSettings) -> None:
        raw = json.loads((settings.schemas / "churn_event.avsc").read_text(encoding="utf-8"))
        self._event = fastavro.parse_schema(raw)
        self._expected = _header(raw)
        self._prediction = fastavro.parse_schema(PREDICTION)
        self._header = _header(PREDICTION)
        self.model = Model(settings.model)

    def answer(self, values: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        """(key, value) of the prediction for each event, in order. Any bad event ends the peer."""
        events = [self._decode(value) for value in values]
        scores = self.model.probabilities(self.model.features(events))
        now_ms = int(time.time() * 1000)
        return [
            (event["customer_id"].encode(), self._encode(event["customer_id"], score, now_ms))
            for event, score in zip(events, scores.tolist(), strict=True)
        ]

    def _decode(self, value: bytes) -> Event:
        if value[:HEADER_SIZE] != self._expected:
            raise ValueError("an event of another schema")
        event = fastavro.schemaless_reader(io.BytesIO(value[HEADER_SIZE:]), self._event)
        return cast("Event", event)  # the schema is a record's

    def _encode(self, customer_id: str, score: float, now_ms: int) -> bytes:
        buffer = io.BytesIO()
        buffer.write(self._header)
        fastavro.schemaless_writer(
            buffer,
            self._prediction,
            {
                "customer_id": customer_id,
                "will_churn": score >= 0.5,
                "probability": score,
                "model_version": self.model.version,
                "predicted_at": now_ms,
            },
        )
        return buffer.getvalue()


def _header(schema: dict[str, Any]) -> bytes:
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    return SINGLE_OBJECT + bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
