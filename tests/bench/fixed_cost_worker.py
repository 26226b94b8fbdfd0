"""The worker with a model of fixed cost: `python -m tests.bench.fixed_cost_worker run --config …`.

Each batch takes BENCH_BATCH_COST_S + BENCH_ROW_COST_S · rows, the real model's own time included, and the rest of it
waiting: without the interpreter lock, as ONNX Runtime would, and without a core. With several `worker.processes`
each of them has such a model. Everything else is the app as it is; it knows nothing of this file.
"""

import ctypes
import os
import sys
import threading
import time

from app.__main__ import main as app_main
from app.models import runtime
from app.worker import children

PR_SET_TIMERSLACK = 29
APP_BEGINS = "from app.__main__ import main; main()"
WE_BEGIN = "from tests.bench.fixed_cost_worker import main; main()"


class FixedCost:
    """What BENCH_… say, done to every run of a loaded model."""

    def __init__(self, batch_s, row_s):
        self._batch_s, self._row_s = batch_s, row_s
        self._sharp = threading.local()

    def run(self, model, run, tensors):
        """Score as the model would, and return when the time is over."""
        until = time.perf_counter() + self._batch_s + self._row_s * len(next(iter(tensors.values())))
        outputs = run(model, tensors)
        if model.load_s:  # else it is still being verified
            self._sleep_until(until)
        return outputs

    def _sleep_until(self, until):
        if not getattr(self._sharp, "set", False):
            self._sharp.set = True
            sleep_sharply()
        left = until - time.perf_counter()
        if left > 0:
            time.sleep(left)


def sleep_sharply():
    """Let this thread's sleeps end on time: Linux may add 50 us to each, a fortieth of a small batch's cost."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)  # nanoseconds


def main():
    """The app's, with such a model."""
    cost = FixedCost(float(os.environ["BENCH_BATCH_COST_S"]), float(os.environ["BENCH_ROW_COST_S"]))
    run = runtime.OnnxModel._run  # one run of at most max_records rows
    runtime.OnnxModel._run = lambda model, tensors: cost.run(model, run, tensors)
    if APP_BEGINS not in children._BEGIN:
        raise RuntimeError("worker processes are not started as they were; their models would cost nothing")
    children._BEGIN = children._BEGIN.replace(APP_BEGINS, WE_BEGIN)
    sys.exit(app_main())


if __name__ == "__main__":
    main()
