"""What a process gives up, for good, before it touches a file that may be code.

Resources by rlimit, everywhere. On Linux, where the kernel lets us: the network and other processes by namespaces
(unshare(2)), and files by Landlock (kernel 5.13, needs no privilege): only the folder it was given can be written,
only the interpreter and the system's libraries can be read. Each function says whether it took hold; a process that
must go on without one says so.

Standard library only: whoever has threads, and numpy starts some on import, can no longer leave.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)

# linux/sched.h: user, network, process and System V namespaces; the first makes the others free of privilege.
_NAMESPACES = 0x10000000 | 0x40000000 | 0x20000000 | 0x08000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
# linux/landlock.h; the system calls have the same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_RIGHTS_OF_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many file rights exist; those after are the same
_ALL_TCP, _ALL_SCOPES = 0b11, 0b11  # from versions 4 and 6: bind and connect; abstract sockets and signals

# What programs read: processor counts, time zones, the loader's cache. No home and no other project.
SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc", "/proc", "/sys", "/dev/urandom")


def confine(memory_bytes: int, cpu_s: int, file_bytes: int) -> list[str]:
    """Give up all of it; only the working directory stays writable. Returns what took hold, `resources` at least."""
    package = Path(__file__).resolve().parents[1]
    places = {sys.prefix, sys.base_prefix, sys.exec_prefix, sysconfig.get_path("stdlib"), *sys.path} - {""}
    readable = {Path(place) for place in places if Path(place).resolve() != package.parent}  # a checkout holds more
    limit_resources(memory_bytes=memory_bytes, cpu_s=cpu_s, file_bytes=file_bytes)
    alone = leave_network_and_processes()
    files = restrict_files(Path.cwd(), [package, *sorted(readable), *map(Path, SYSTEM)])
    return ["resources", *(["network", "processes"] if alone else []), *(["files"] if files else [])]


def limit_resources(*, memory_bytes: int, cpu_s: int, file_bytes: int) -> None:
    """Cap address space, processor time and the size of any one file; no core dumps."""
    for what, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        try:
            resource.setrlimit(what, (allowed, allowed))
        except ValueError:  # macOS takes no limit of address space; there, time is what ends a glutton
            if os.uname().sysname == "Linux":
                raise


def leave_network_and_processes() -> bool:
    """Go on as a child that has no network and sees only its own descendants; False if the kernel refuses.

    The process that called waits and ends as the child does, 128 + n for signal n. When either ends, so does
    everything the child started. Call it before there are threads.
    """
    unshare = getattr(_LIBC, "unshare", None)
    if unshare is None or unshare(_NAMESPACES) != 0:
        return False
    _fork_and_end_alike()  # the first process of a namespace ignores signals, so it only waits for the second
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _fork_and_end_alike()
    return True


def _fork_and_end_alike() -> None:
    child = os.fork()
    if child == 0:
        return
    ended, status = os.wait()
    while ended != child:
        ended, status = os.wait()
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def restrict_files(writable: Path, readable: Iterable[Path]) -> bool:
    """Leave only `writable` to change, `readable` to read or execute, and the null device; False if not to be had.

    TCP and signals to others go with it where the kernel knows how. Inherited by everything started later.
    """
    version = _landlock(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        return False
    every_right = (1 << _RIGHTS_OF_VERSION.get(version, 16)) - 1
    attributes = struct.pack("=QQQ", every_right, _ALL_TCP if version >= 4 else 0, _ALL_SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _landlock(_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        return False
    reading = _EXECUTE | _READ_FILE | _READ_DIR
    held = _allow(ruleset, writable, every_right) and _allow(ruleset, Path(os.devnull), _READ_FILE | _WRITE_FILE)
    for path in readable:
        if path.exists():
            held &= _allow(ruleset, path, reading if path.is_dir() else _EXECUTE | _READ_FILE)
    held = held and _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    held = held and _landlock(_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return held


def _allow(ruleset: int, path: Path, rights: int) -> bool:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return _landlock(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0) == 0
    finally:
        os.close(descriptor)


def _landlock(number: int, *arguments: int | bytes | None) -> int:
    """Call the kernel; -1 where it, or the platform, does not know the call."""
    if os.uname().sysname != "Linux":
        return -1
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return int(_LIBC.syscall(ctypes.c_long(number), *wide))
