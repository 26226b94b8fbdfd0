"""Other commands as processes: a Python interpreter of their own, their JSON back, their complaint if they fail."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadgen.bench.peer_process import clean_environment
from loadgen.errors import BadOption, LoadgenError

TIMEOUT_S = 1800.0  # verifying 3 million events takes a minute or two; training a forest a few seconds


def beside_python(program: str) -> str:
    """The path of a program of this environment. Raises BadOption if it is not installed."""
    path = Path(sys.executable).with_name(program)
    if not path.exists():
        raise BadOption(f"{program} is not installed beside {sys.executable}; name it with --worker")
    return str(path)


def output_of(*command: str, environment: Mapping[str, str] | None = None) -> str:
    """What a command printed; environment: further variables. Raises LoadgenError with its complaint if it fails."""
    variables = clean_environment(environment or {})
    try:
        done = subprocess.run(  # noqa: S603 - nothing goes through a shell
            command, capture_output=True, text=True, env=variables, check=False, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LoadgenError(f"{command[0]}: {error}") from error
    if done.returncode:
        said = "\n".join((done.stdout[-1000:] + done.stderr[-2000:]).splitlines()[-20:])
        raise LoadgenError(f"{' '.join(command[:4])} … failed with status {done.returncode}:\n{said}")
    return done.stdout


def loadgen(*arguments: str) -> dict[str, Any]:
    """The JSON of `loadgen … --json`. Raises LoadgenError if it fails, a broken law included."""
    page: dict[str, Any] = json.loads(output_of(sys.executable, "-m", "loadgen", *arguments, "--json"))
    return page
