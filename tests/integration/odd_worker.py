"""The worker with a model that misbehaves: `python -m tests.integration.odd_worker run --config …`.

ODD_MODEL says how, from the first batch after the start on:

    sleep:SECONDS        each batch takes this long
    fail:FIRST:LAST      it fails on a batch with a row whose first feature lies between these, both included
    nan:FIRST:LAST       such rows are answered with NaN
    break:COUNT[:VERSION] it fails from this batch on, whatever it is given; only this version, if one is named

Everything else is the app as it is; it knows nothing of this file.
"""

import os
import sys
import time

import numpy as np

from app.__main__ import main
from app.errors import ModelFailed
from app.models import runtime


class Oddity:
    """What ODD_MODEL says, done to every run of a loaded model."""

    def __init__(self, text):
        self._kind, *numbers = text.split(":")
        self._numbers = [float(number) for number in numbers]
        self._batches = 0

    def run(self, model, run, tensors):
        """Score as the model would, oddly."""
        if not model.load_s:
            return run(model, tensors)  # it is still being verified
        self._batches += 1
        first = next(iter(tensors.values())).reshape(len(next(iter(tensors.values()))), -1)[:, 0]
        low, high = (*self._numbers, 0.0)[:2]
        odd = (first >= low) & (first <= high)
        broken = self._batches >= low and high in {0.0, float(model.version)}
        if self._kind == "sleep":
            time.sleep(low)
        elif (self._kind == "fail" and odd.any()) or (self._kind == "break" and broken):
            raise ModelFailed("odd")
        outputs = run(model, tensors)
        if self._kind == "nan" and odd.any():
            outputs = {name: np.where(odd[:, None], np.nan, array) for name, array in outputs.items()}
        return outputs


def _install(oddity):
    run = runtime.OnnxModel._run  # of a batch; several may be taken together
    runtime.OnnxModel._run = lambda model, tensors: oddity.run(model, run, tensors)


if __name__ == "__main__":
    _install(Oddity(os.environ["ODD_MODEL"]))
    sys.exit(main())
