"""The worker with a version 2 that is worse: `python -m tests.integration.worse_canary run --config …`.

WORSE says how, once it is loaded and verified: `errors` (5 % of the rows are answered with NaN), `latency` (a batch
takes 30 ms more), `disagreement` (yes for no), or `nothing`. Everything else is the app as it is.
"""

import os
import sys
import time

import numpy as np

from app.__main__ import main
from app.models.runtime import OnnxModel

VERSION = "2"


def worse(how, run):
    """`run`, worse."""

    def odd(model, tensors):
        outputs = run(model, tensors)
        if model.version != VERSION or not model.load_s:  # without a load time it is still being verified
            return outputs
        if how == "latency":
            time.sleep(0.03)
        if how == "disagreement":
            return {name: array[:, ::-1].copy() for name, array in outputs.items()}
        if how == "errors":
            features = next(iter(tensors.values()))
            bad = np.floor(features.sum(axis=1) * 1000) % 20 == 0  # one in twenty, the same ones each time
            return {name: np.where(bad[:, None], np.nan, array) for name, array in outputs.items()}
        return outputs

    return odd


if __name__ == "__main__":
    OnnxModel.run = worse(os.environ["WORSE"], OnnxModel.run)
    OnnxModel.check = lambda model: None  # by its golden rows it is in order, whatever it answers to these
    sys.exit(main())
