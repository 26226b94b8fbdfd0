"""What a worker does about memory before it allocates any."""

import os
import platform
import subprocess
import sys

import pytest

POOL = "import pyarrow; print(pyarrow.default_memory_pool().backend_name)"
# Threads that hold on to memory at the same time: without a bound glibc gives each its own arena.
ARENAS = """
import ctypes, tempfile, threading
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(8)
def hold():
    together.wait()
    for _ in range(1000):
        libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=hold) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with tempfile.NamedTemporaryFile("r") as told:
    page = ctypes.c_void_p(libc.fopen(told.name.encode(), b"w"))
    libc.malloc_info(0, page)
    libc.fclose(page)
    print(told.read().count("<heap nr="))
"""
# Small pieces, then some of them again for good: glibc finds nothing free at the end of what they lay in.
FREED = """
import ctypes, psutil, time
allocator._GIVE_BACK_EVERY_S = 0.1
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
pieces = [libc.malloc(5000) for _ in range(20_000)]
for piece in pieces:
    ctypes.memset(piece, 1, 5000)
for piece in pieces[:-1]:
    libc.free(piece)
mine = psutil.Process()
held = mine.memory_info().rss
allocator.keep_little()
until = time.monotonic() + 20
while mine.memory_info().rss > held - 80_000_000 and time.monotonic() < until:
    time.sleep(0.05)
print(held - mine.memory_info().rss)
"""


def printed(code, *, kept=True, **environment):
    code = f"from app.cli import allocator; allocator.keep_little()\n{code}" if kept else code
    clean = {name: value for name, value in os.environ.items() if name not in {"ARROW_DEFAULT_MEMORY_POOL"}}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_arrow_takes_its_memory_where_all_others_do():
    assert printed(POOL) == "system"


def test_a_pool_that_the_environment_names_is_used():
    assert printed(POOL, ARROW_DEFAULT_MEMORY_POOL="mimalloc") == "mimalloc"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
def test_many_threads_share_two_arenas():
    assert int(printed(ARENAS, kept=False)) > 2
    assert int(printed(ARENAS)) == 2
    assert int(printed(ARENAS, MALLOC_ARENA_MAX="4")) > 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other ways")
def test_what_is_free_between_what_is_not_goes_back_to_the_system():
    assert int(printed(f"from app.cli import allocator\n{FREED}", kept=False)) > 80_000_000
