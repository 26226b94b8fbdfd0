"""Runs a conversion in a process of its own and takes nothing from it but bytes of the expected size.

The process gets an empty environment, a temporary directory, limits on memory, processor time, time and file
sizes, and what `confinement.py` adds where the kernel allows it. However it ends, its session ends with the call; what
has left that session goes with it where processes are confined, and otherwise when its own limits end it.
"""

import io
import math
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import numpy as np

import app
from app.errors import BadSettings, ModelInvalid
from app.models.conversion import GRAPH_FILE, LONGEST_MESSAGE, TASK_FILE, Framework, Task, input_file, output_file
from app.models.original import Array, width_of
from app.specs import InputSpec, Output

SUFFIXES: dict[Framework, tuple[str, ...]] = {
    "sklearn": (".joblib", ".pkl"),
    "lightgbm": (".txt",),
    "xgboost": (".json", ".ubj"),
    "pytorch": (".pt2",),
}
CAN_BE_CODE: frozenset[Framework] = frozenset({"sklearn", "pytorch"})  # joblib is a pickle; a .pt2 may hold one
MODULES: dict[Framework, tuple[str, ...]] = {
    "sklearn": ("sklearn", "joblib", "skl2onnx"),
    "lightgbm": ("lightgbm", "onnxmltools"),
    "xgboost": ("xgboost", "onnxmltools"),
    "pytorch": ("torch", "onnxscript"),
}
EXTRAS: dict[Framework, str] = {framework: framework for framework in MODULES} | {"sklearn": "train"}
# Our own path comes last: what is installed wins. -I: no environment, no user site, nothing of the directory.
# What confines it is said into a pipe that is closed before anything of the source is read.
_START = """
import os, sys
sys.path.append(sys.argv[1])
from app.models.confinement import confine
held = confine(*map(int, sys.argv[3:]))
os.write(int(sys.argv[2]), (" ".join(held) + "\\n").encode())
os.close(int(sys.argv[2]))
from app.models.conversion import main
main()
"""
_PACKAGE_PARENT = str(Path(next(iter(app.__path__))).resolve().parent)
GIB = 2**30
CONFINED_BY = ("resources", "network", "processes", "files")  # every word of `confine`
MOST_SAID = 4096  # bytes of what the process says that are looked at


@dataclass(frozen=True, slots=True)
class SandboxPolicy:
    """What a conversion may use. memory_bytes: address space; CUDA builds of PyTorch map far more than they touch."""

    memory_bytes: int = 16 * GIB
    time_s: float = 600.0
    file_bytes: int = 4 * GIB


@dataclass(frozen=True, slots=True)
class Converted:
    """graph: ONNX bytes. answers: the original's, by output, (n, numbers of the output) float64.

    held: what confined the process: resources, and where the kernel let it network, processes, files.
    """

    graph: bytes
    answers: Mapping[str, Array]
    held: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A trained model as its framework stored it. trusted: whoever asks says that running its code is fine."""

    path: Path
    framework: Framework
    trusted: bool = False

    def check(self) -> None:
        """Raise BadSettings if it cannot be converted here: file, format, trust or extra are missing."""
        suffixes, framework = SUFFIXES[self.framework], self.framework
        if not self.path.is_file():
            raise BadSettings(f"{self.path} is not a file")
        if self.path.suffix not in suffixes:
            raise BadSettings(f"{self.path.name}: a {framework} model is a file {' or '.join(suffixes)}")
        if framework in CAN_BE_CODE and not self.trusted:
            raise BadSettings(
                f"{self.path.name} can hold code that runs when it is loaded: only with --trust-pickle, "
                "and only if you know who made it"
            )
        missing = [name for name in MODULES[framework] if find_spec(name) is None]
        if missing:
            raise BadSettings(
                f"converting {framework} models needs {', '.join(missing)}, which is not installed: "
                f"pip install 'kafka-inference-worker[{EXTRAS[framework]}]'"
            )


def convert(
    source: Source,
    name: str,
    inputs: tuple[InputSpec, ...],
    outputs: tuple[Output, ...],
    tensors: Mapping[str, Array],
    policy: SandboxPolicy,
) -> Converted:
    """Convert a model, and ask the original about the rows of `tensors`.

    Raises BadSettings as `Source.check`, ModelInvalid with the framework's words, or with what the process ran
    into, if there is no result.
    """
    source.check()
    rows = len(next(iter(tensors.values())))
    with tempfile.TemporaryDirectory(prefix="conversion-") as folder:
        here = Path(folder)
        task = Task(
            framework=source.framework,
            name=name,
            source=f"source{source.path.suffix}",
            inputs=inputs,
            outputs=outputs,
        )
        shutil.copyfile(source.path, here / task.source)
        for i, spec in enumerate(inputs):
            np.save(here / input_file(i), tensors[spec.name])
        (here / TASK_FILE).write_text(task.model_dump_json(), encoding="utf-8")
        held = _run(here, source.path.name, policy)
        answers = {
            output.name: _answers(here / output_file(i), rows, output, policy) for i, output in enumerate(outputs)
        }
        return Converted(_read(here / GRAPH_FILE, policy.file_bytes), answers, held)


def _run(here: Path, what: str, policy: SandboxPolicy) -> tuple[str, ...]:
    """Returns what confined it."""
    environment = {"HOME": str(here), "TMPDIR": str(here), "PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    if libraries := os.environ.get("LD_LIBRARY_PATH"):  # the operator's: where a framework finds its OpenMP
        environment["LD_LIBRARY_PATH"] = libraries
    cpu_s = max(1, math.ceil(policy.time_s * (os.cpu_count() or 1)))
    limits = [str(limit) for limit in (policy.memory_bytes, cpu_s, policy.file_bytes)]
    start = [sys.executable, "-I", "-B", "-W", "ignore", "-c", _START, _PACKAGE_PARENT]
    ours, theirs = os.pipe()
    # the pipe and the file have no name: what they hold is what was written to them
    with io.FileIO(ours) as said, tempfile.TemporaryFile() as complained:
        try:
            child = subprocess.Popen(  # noqa: S603 - our own interpreter and code; the numbers are ours too
                [*start, str(theirs), *limits],
                cwd=here,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complained,
                pass_fds=[theirs],
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        try:
            status = child.wait(policy.time_s)
        except subprocess.TimeoutExpired as exc:
            raise ModelInvalid(f"{what}: no end after {policy.time_s:g} s; it was stopped") from exc
        finally:
            _end(child)
        held, words = _held(said), _last_line(complained)
    if status == 0:
        return held
    if status in {-signal.SIGXFSZ, 128 + signal.SIGXFSZ}:
        raise ModelInvalid(f"{what}: it wrote a file of more than {policy.file_bytes} bytes; it was stopped")
    killed_by = -status if status < 0 else status - 128
    if killed_by in set(signal.Signals):
        raise ModelInvalid(f"{what}: its conversion was ended by {signal.Signals(killed_by).name}")
    raise ModelInvalid(f"{what}: {words or f'its conversion ended with status {status}'}")


def _end(child: subprocess.Popen[bytes]) -> None:
    """The session goes as one; where there are namespaces, their other processes go with their first."""
    with suppress(ProcessLookupError, PermissionError):  # gone already
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _read(path: Path, most: int) -> bytes:
    """Read a plain file that somebody else may have put there. Raises ModelInvalid if it is anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise ModelInvalid("the conversion ended without a result") from exc
    with io.FileIO(descriptor) as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > most:
            raise ModelInvalid(f"the conversion left something else than a file of at most {most} bytes")
        return file.read(found.st_size)


def _answers(path: Path, rows: int, output: Output, policy: SandboxPolicy) -> Array:
    content, width = _read(path, policy.file_bytes), width_of(output)
    if len(content) != rows * width * 8:
        raise ModelInvalid(f"output {output.name!r}: {len(content)} bytes for {rows} rows of {width} numbers")
    return np.frombuffer(content, np.float64).reshape(rows, width)


def _held(said: io.FileIO) -> tuple[str, ...]:
    """What took hold, as the process said before it read the source; what came after that line is nobody's word."""
    os.set_blocking(said.fileno(), False)  # a process that got away may hold the other end
    line, ended, _ = (said.read(MOST_SAID) or b"").partition(b"\n")
    words = line.decode("ascii", "replace").split() if ended else []
    return tuple(word for word in CONFINED_BY if word in words)


def _last_line(complained: IO[bytes]) -> str:
    """The last line with something in it: an error's, see `conversion.main`. Nothing a terminal would act on."""
    complained.seek(max(0, complained.seek(0, os.SEEK_END) - MOST_SAID))
    lines = complained.read(MOST_SAID).decode("utf-8", "replace").splitlines()
    shown = ("".join(char if char.isprintable() else " " for char in line).strip() for line in reversed(lines))
    return next((line[:LONGEST_MESSAGE] for line in shown if line), "")
