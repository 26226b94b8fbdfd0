"""A BentoML service as its documentation has it: `batchable`, or not if `BATCHING` is off."""

import os

import bentoml
import joblib
import numpy as np

ON = os.environ["BATCHING"] == "on"
BATCHES = {"batchable": True, "max_batch_size": 512, "max_latency_ms": 1000} if ON else {}


@bentoml.service(workers=1, traffic={"timeout": 30}, logging={"access": {"enabled": False}})
class Churn:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    @bentoml.api(**BATCHES)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.model.predict_proba(rows)
