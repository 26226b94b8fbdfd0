"""Real handwritten digits, through Kafka and beside it."""

import json

import numpy as np
import onnxruntime
from rig import answers
from worker_process import running_worker

from app.train.digits import digits_data
from loadgen.digit_events import Digits


def test_the_digits_get_the_same_classes_through_kafka_as_offline_and_the_promised_accuracy(lane, models, tmp_path):
    images = Digits.load()
    digits = lane("digits")
    digits.produce(len(images.labels))

    with running_worker(digits.settings(), tmp_path) as worker:
        verdict = digits.verified(sample=0)
        assert worker.stop() == 0

    assert verdict.score.checked == len(images.labels)
    session = onnxruntime.InferenceSession(str(models / "digits" / "1" / "model.onnx"))
    (probabilities,) = session.run(["probabilities"], {"X": images.images})
    through_kafka = np.full(len(images.labels), -1)
    for _, answer in answers(digits):
        through_kafka[int(answer["digit_id"].split("-")[1])] = answer["prediction"]
    np.testing.assert_array_equal(through_kafka, probabilities.argmax(axis=1))

    held_out = digits_data().held_out
    accuracy = float((through_kafka == images.labels)[held_out].mean())
    manifest = json.loads((models / "digits" / "1" / "manifest.json").read_text())
    assert accuracy == manifest["metrics"]["accuracy"]
    assert accuracy > 0.95
