"""How a worker's memory is allocated: so that what a burst took goes back to the system after it.

A worker's threads allocate in turns what other threads free, the client library's most of all. glibc gives each of
them an arena of its own and keeps what is freed there, and Arrow's own pool keeps some as well. Two arenas for all of
them keep less, at the same CPU time (docs/BENCHMARKS.md). Of an arena glibc by itself gives back only what is free at
its end; what is free in its midst goes back when it is told to (malloc_trim(3)).
"""

import ctypes
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_M_ARENA_MAX = -8  # glibc's malloc.h
_ARENAS = 2
_ARROW_POOL = "ARROW_DEFAULT_MEMORY_POOL"  # read by Arrow when it allocates first
_GIVE_BACK_EVERY_S = 30.0  # each can hold up whoever allocates for some milliseconds


def keep_little() -> None:
    """Before Arrow is imported and threads are started; starts one that gives back what is free, for good.

    What the environment says of arenas and the pool stands.
    """
    os.environ.setdefault(_ARROW_POOL, "system")
    with suppress(AttributeError, OSError):  # another C library
        libc = ctypes.CDLL(None)
        if "MALLOC_ARENA_MAX" not in os.environ:
            libc.mallopt(_M_ARENA_MAX, _ARENAS)
        threading.Thread(target=_give_back, args=(libc.malloc_trim,), name="give-back", daemon=True).start()


def _give_back(trim: Callable[[int], object]) -> None:
    while True:
        time.sleep(_GIVE_BACK_EVERY_S)
        trim(0)
