"""A command whose libraries are not installed says which one, and what to install."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("command", "library", "extra"), [("monitor", "faust", "monitor"), ("serve", "grpc", "serving")]
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(command, library, extra):
    without = f"import sys; sys.modules[{library!r}] = None; from app.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", without, command, "--config", "nobody-reads-it.yaml"],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip
    told = f"BadSettings: {library} is not installed: pip install 'kafka-inference-worker[{extra}]'"
    assert (done.returncode, done.stderr.strip()) == (2, told)
