"""The worker, telling how long its loop did not turn: `python -m tests.bench.turn_times run --config …`.

A line in TURNS_FILE for each turn longer than TELL_MS: when it began (epoch milliseconds), how long it took, and how
much of that went to calls that give a transaction its offsets, commit it or abort it.
Everything else is the app as it is; it knows nothing of this file.
"""

import os
import sys
import time
from pathlib import Path

from app.__main__ import main
from app.kafka.transactions import TransactionalSink
from app.worker.stream import StreamWorker

TELL_MS = 5.0


def _install(file):
    turn, call = StreamWorker.turn, TransactionalSink._call
    waited_s = 0.0

    def timed_call(sink, *arguments):
        nonlocal waited_s
        began = time.perf_counter()
        try:
            call(sink, *arguments)
        finally:
            waited_s += time.perf_counter() - began

    def timed(worker):
        nonlocal waited_s
        waited_s = 0.0
        began_ms, began = time.time() * 1000, time.perf_counter()
        turn(worker)
        took_ms = (time.perf_counter() - began) * 1000
        if took_ms > TELL_MS:
            file.write(f"{began_ms:.0f} {took_ms:.2f} {1000 * waited_s:.2f}\n")

    StreamWorker.turn, TransactionalSink._call = timed, timed_call


if __name__ == "__main__":
    with Path(os.environ["TURNS_FILE"]).open("w") as turns:
        _install(turns)
        status = main()
    sys.exit(status)
