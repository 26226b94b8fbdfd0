"""How a worker's memory is allocated: so that what a burst took goes back to the system after it.

A worker's threads allocate in turns what other threads free, the client library's most of all. glibc gives each of
them an arena of its own and keeps what is freed there, and Arrow's own pool keeps some as well. Two arenas for all of
them keep less, at the same CPU time (docs/BENCHMARKS.md).
"""

import ctypes
import os
from contextlib import suppress

_M_ARENA_MAX = -8  # glibc's malloc.h
_ARENAS = 2
_ARROW_POOL = "ARROW_DEFAULT_MEMORY_POOL"  # read by Arrow when it allocates first


def keep_little() -> None:
    """Before Arrow is imported and threads are started. What the environment says of either stands."""
    os.environ.setdefault(_ARROW_POOL, "system")
    if "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
