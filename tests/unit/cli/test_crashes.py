"""A program that fails on purpose says why in one line; one that crashes shows its code, never its values."""

import subprocess
import sys
from pathlib import Path

CANARY = "c4n4ry-53cr3t"
ROOT = Path(__file__).parents[3]


def run(raising):
    """The program, with a worker that does this first."""
    script = (
        "import sys; from app import errors; from app.wiring import processes; from app.__main__ import main\n"
        f"def crash(_):\n    password = '-'.join({CANARY.split('-')})\n    {raising}\n"
        "processes.run_worker = crash\n"
        "sys.argv = ['inference-worker', 'run', '--config', 'x']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_crash_shows_no_local_variable():
    status, said = run("raise RuntimeError('boom')")
    assert status == 1
    assert "boom" in said
    assert "crash" in said
    assert CANARY not in said


def test_a_bad_start_is_one_line_and_status_2():
    status, said = run("raise errors.BadSettings('kafka.group_id: wrong')")
    assert (status, said.strip()) == (2, "BadSettings: kafka.group_id: wrong")


def test_a_fatal_error_is_one_line_and_status_1():
    status, said = run("raise errors.Fenced('another worker')")
    assert (status, said.strip()) == (1, "Fenced: another worker")
