"""The worker, telling how long its loop did not turn: `python -m tests.bench.turn_times run --config …`.

A line in TURNS_FILE for each turn longer than TELL_MS: when it began (epoch milliseconds), and how long it took.
Everything else is the app as it is; it knows nothing of this file.
"""

import os
import sys
import time
from pathlib import Path

from app.__main__ import main
from app.worker.stream import StreamWorker

TELL_MS = 5.0


def _install(file):
    turn = StreamWorker.turn

    def timed(worker):
        began_ms, began = time.time() * 1000, time.perf_counter()
        turn(worker)
        took_ms = (time.perf_counter() - began) * 1000
        if took_ms > TELL_MS:
            file.write(f"{began_ms:.0f} {took_ms:.2f}\n")

    StreamWorker.turn = timed


if __name__ == "__main__":
    with Path(os.environ["TURNS_FILE"]).open("w") as turns:
        _install(turns)
        status = main()
    sys.exit(status)
