"""quixstreams in an environment of its own: it pins an older confluent-kafka than the worker's.

Made once with `uv`, from the network, in the sitting's work directory. The peer in it runs the client version that
quixstreams asks for, which is what its users get; of us it sees a copy of the peers, and none of our libraries.
"""

import importlib.util
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from loadgen.bench.commands import output_of
from loadgen.errors import BadOption

QUIX_VERSION = "3.28.1"
HERE = Path(__file__).parent
SEEN = ("__init__.py", "bench/__init__.py", "bench/peers/__init__.py", "bench/peers/job.py", "bench/peers/quix_sink.py")


def quix_source(directory: Path) -> Path:
    """A folder for PYTHONPATH that has the peer and what it imports of us; copied anew each time."""
    for name in SEEN:
        copy = directory / "loadgen" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE.parent / name, copy)
    return directory


def quix_python(directory: Path) -> str:
    """The interpreter of an environment that has quixstreams; made if it is not there yet."""
    python = directory / "bin" / "python"
    ready = directory / f".ready-{QUIX_VERSION}"
    if ready.exists():
        return str(python)
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise BadOption("quixstreams needs an environment of its own, and uv to make it, which is not installed")
    output_of(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(directory))
    wanted = [f"quixstreams=={QUIX_VERSION}"]
    wanted += [f"{name}=={version(name)}" for name in ("fastavro", "numpy", "onnxruntime")]  # as the other peers have
    output_of(uv, "pip", "install", "--quiet", "--python", str(python), *wanted)
    ready.touch()
    return str(python)


def is_installed(package: str) -> bool:
    """Whether this environment has it."""
    return importlib.util.find_spec(package) is not None
