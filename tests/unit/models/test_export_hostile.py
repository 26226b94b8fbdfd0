"""A pickle is code: what a hostile one tries in the converting process, and that it ends in an error and no version."""

import os
import pickle
import signal
import socket
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conversion_world import NOW, binary, rows_of, spec_of

from app.errors import ModelInvalid
from app.models.adopt import AdoptPolicy, adopt_model
from app.models.held_out import HeldOut
from app.models.sandbox import GIB, SandboxPolicy, Source, convert

CHECKOUT = Path(__file__).parents[3]
ROWS = rows_of(20)
POLICY = SandboxPolicy(memory_bytes=2 * GIB, time_s=280, file_bytes=64 * 2**20)


class Runs:
    """Unpickled, it runs `code`, and is what the code calls `model` then."""

    def __init__(self, code: str) -> None:
        self._code = code

    def __reduce__(self):
        return eval, (f"(lambda names: (exec({self._code!r}, names), names.get('model'))[1])({{}})",)


# Answers as a fitted classifier would, and says in its first row what it was able to do.
TELLS = """
did = {did}
import numpy
from sklearn.linear_model import LogisticRegression
class Tells(LogisticRegression):
    def predict_proba(self, rows):
        return numpy.full((len(rows), 2), float(did))
model = LogisticRegression().fit(numpy.eye(4), [0, 1, 0, 1])
model.predict_proba = Tells.predict_proba.__get__(model)
"""
TRIES = """
def tries():
    try:
        {attempt}
    except Exception:
        return False
    return True
"""


@pytest.fixture
def hostile(tmp_path):
    def make(code):
        path = tmp_path / "hostile.pkl"
        path.write_bytes(pickle.dumps(Runs(code)))
        return Source(path, "sklearn", trusted=True)

    return make


@pytest.fixture
def run(hostile):
    def run(code, policy=POLICY):
        spec = spec_of(binary())
        return convert(hostile(code), "hostile", spec.inputs, spec.outputs, {"X": ROWS}, policy)

    return run


@pytest.fixture
def attempt(run):
    """Whether an attempt succeeded, and what the process was confined by."""

    def attempt(code):
        done = run(TRIES.format(attempt=code) + TELLS.format(did="tries()"))
        return bool(done.answers["probabilities"][0, 0]), set(done.held)

    return attempt


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("raise ValueError('boo')", r"hostile\.pkl: ValueError: boo"),
        ("import os; os._exit(0)", "the conversion ended without a result"),
        ("import os; os._exit(3)", "its conversion ended with status 3"),
        ("import sys; sys.exit('goodbye')", "goodbye"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "its conversion was ended by SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "its conversion was ended by SIGSEGV"),
        ("kept = []\nwhile True: kept.append(bytearray(2 ** 26))", "MemoryError"),
        ("open('large', 'wb').truncate(2 ** 40)", "a file of more than|OSError|SIGXFSZ"),
        ("print('x' * 2 ** 28, flush=True)", "a NoneType has no predict_proba"),
        ("import os\nwhile os.write(2, b'x' * 2 ** 20): pass", "a file of more than|OSError|x{400}$"),
        ("import os; os.write(2, b'\\x1b[2J\\x1b]0;you\\x07boo\\x9b31m\\n'); os._exit(3)", r"\.pkl: \[2J \]0;you boo"),
        ("import os; os.symlink('/etc/passwd', 'graph'); os._exit(0)", "ended without a result"),
        ("import os; os.mkfifo('graph'); os.mkfifo('output-0'); os._exit(0)", "ended without a result|something else"),
        (
            "open('graph', 'w').write('x'); open('output-0', 'w').write('x'); import os; os._exit(0)",
            "1 bytes for 20 rows",
        ),
        ("model = {}", "a dict has no predict_proba"),
        ("raise RecursionError('\\n' * 10000 + '\\x1b[31m' * 10000)", "RecursionError"),
    ],
)
def test_whatever_it_does_there_is_a_clear_error_and_no_version(code, complaint, hostile, store):
    policy = AdoptPolicy(sandbox=POLICY)
    with pytest.raises(ModelInvalid, match=complaint) as caught:
        adopt_model(
            hostile(code), spec_of(binary()), HeldOut({"X": ROWS}), store, "hostile", policy=policy, at=NOW, who="me"
        )
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()
    assert store.models() == []


@pytest.mark.parametrize("code", ["while True: pass", "import time\nwhile True: time.sleep(3600)"])
def test_one_that_never_ends_is_ended(code, run):
    with pytest.raises(ModelInvalid, match="no end after 2 s; it was stopped"):
        run(code, SandboxPolicy(memory_bytes=2 * GIB, time_s=2))


def test_one_that_keeps_the_processor_busy_in_processes_of_its_own_is_ended_with_them(run):
    with pytest.raises(ModelInvalid, match="it was stopped"):
        run("import os\nif not os.fork(): os.setsid()\nwhile True: pass", SandboxPolicy(memory_bytes=2 * GIB, time_s=2))


def test_an_honest_attempt_succeeds_so_the_others_do_fail(attempt):
    did, held = attempt("open('mine', 'w').write('x')")
    assert did
    assert "resources" in held


FORGES = """
import os
words = b"resources network processes files forged \\x1b[31m\\n"
for name in ("said", "held"):
    with open(name, "wb") as file:
        file.write(words)
for descriptor in range(3, 64):
    try:
        os.write(descriptor, words)
    except OSError:
        pass
"""


def test_what_confined_it_is_not_for_it_to_say(run):
    honest = run(TELLS.format(did="0")).held
    forged = run(FORGES + TELLS.format(did="0")).held
    assert forged == honest
    assert set(honest) <= {"resources", "network", "processes", "files"}


def test_files_outside_its_folder_are_out_of_reach_where_it_says_so(attempt, tmp_path):
    outside = tmp_path / "outside"
    did, held = attempt(f"open({str(outside)!r}, 'w').write('x')")
    assert outside.exists() == did == ("files" not in held)


def test_what_we_keep_outside_cannot_be_read_where_it_says_so(attempt, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    did, held = attempt(f"open({str(secret)!r}).read()")
    assert did == ("files" not in held)
    did, held = attempt(f"open({str(CHECKOUT / 'pyproject.toml')!r}).read()")
    assert did == ("files" not in held)


def test_there_is_no_network_where_it_says_so(attempt):
    with socket.create_server(("127.0.0.1", 0)) as server:
        did, held = attempt(f"import socket; socket.create_connection({server.getsockname()!r}, 5)")
        assert not did or "network" not in held


def test_nothing_of_ours_is_in_its_environment(attempt, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    did, _ = attempt("import os; os.environ['AWS_SECRET_ACCESS_KEY']")
    assert not did


def test_it_cannot_signal_us_where_it_says_so(attempt):
    received = []
    before = signal.signal(signal.SIGUSR1, lambda *_: received.append(1))
    try:
        _, held = attempt(f"import os; os.kill({os.getpid()}, 10)")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not received or "processes" not in held


def test_what_it_started_ends_with_it_where_it_says_so(attempt):
    marker = f"86399.{uuid.uuid4().int}"
    did, held = attempt(f"import subprocess; subprocess.Popen(['sleep', {marker!r}], start_new_session=True)")
    assert did
    left = [pid for pid, command in commands_of_all() if marker in command]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert bool(left) == ("processes" not in held)


def commands_of_all():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            yield int(path.parent.name), path.read_bytes().decode("utf-8", "replace")


def test_answers_that_are_not_finite_are_no_golden_rows(hostile, store):
    code = TELLS.format(did="float('nan')")
    policy = AdoptPolicy(sandbox=POLICY)
    with pytest.raises(ModelInvalid, match="its answers cannot be golden rows"):
        adopt_model(
            hostile(code), spec_of(binary()), HeldOut({"X": ROWS}), store, "hostile", policy=policy, at=NOW, who="me"
        )
    assert store.models() == []


def test_a_liar_about_its_answers_is_found_out(hostile, store):
    policy = AdoptPolicy(tolerance=0.1, sandbox=POLICY)
    with pytest.raises(ModelInvalid, match="differs from golden row 0"):
        adopt_model(
            hostile(TELLS.format(did="7")),
            spec_of(binary()),
            HeldOut({"X": np.zeros((3, 4), np.float32)}),
            store,
            "hostile",
            policy=policy,
            at=NOW,
            who="me",
        )
    assert store.models() == []
