"""The worker with a shadow that misbehaves: `python -m tests.integration.odd_shadow run --config …`.

ODD_SHADOW says how, in the shadow's process only, once its model is loaded and verified: `raise` (an exception nobody
foresaw), `fail` (the model fails on every batch), `hang`, `nan`, `memory` (allocates without bound), `crash` (a
segmentation fault), `gone` (so does its import), or `nothing`. Everything else is the app as it is, less patient.
"""

import ctypes
import os
import sys
import time

import numpy as np

from app.__main__ import main as app_main
from app.errors import ModelFailed
from app.models.runtime import OnnxModel
from app.wiring import shadow
from app.worker import shadow_process
from app.worker.shadow import ShadowPolicy

BEGIN = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.readline()); "
    "from tests.integration.odd_shadow import main; main()"
)
HOARD = []


def odd(how, run):
    """`run`, oddly."""

    def ask(model, tensors):
        if not model.load_s or how == "nothing":  # without a load time it is still being verified
            return run(model, tensors)
        if how == "raise":
            raise LookupError("nobody foresaw this")
        if how == "fail":
            raise ModelFailed("odd")
        if how == "hang":
            ctypes.PyDLL(None).sleep(3600)  # and it keeps the interpreter lock
        while how == "memory":
            HOARD.append(np.ones(4 << 20))
        if how == "crash":
            ctypes.string_at(0)
        outputs = run(model, tensors)
        return {name: np.full_like(array, np.nan) for name, array in outputs.items()} if how == "nan" else outputs

    return ask


def main():
    """A shadow's process, or the worker itself."""
    how = os.environ["ODD_SHADOW"]
    if "run-shadow" in sys.argv:
        OnnxModel.run = odd(how, OnnxModel.run)
        if how == "fail":
            OnnxModel.check = lambda model: (_ for _ in ()).throw(ModelFailed("odd"))
        if how == "nan":
            OnnxModel.check = lambda model: None  # by its golden rows it is in order
        if how == "gone":
            time.sleep(0.2)
            os.kill(os.getpid(), 9)
    shadow_process.BEGIN = BEGIN
    # only one that hangs is to be found to: the others may have no turn for a while on a busy machine
    impatient = ShadowPolicy(starts=3, backoff_s=0.2, answer_within_s=3.0 if how == "hang" else 30.0)
    shadow.ShadowPolicy = lambda: impatient
    app_main()


if __name__ == "__main__":
    sys.exit(main())
