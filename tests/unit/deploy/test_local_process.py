import json
import subprocess
import sys
import time

import psutil
import pytest

from deploy.local import process
from deploy.local.errors import StartFailed
from deploy.local.process import ProcessIdentity, ServerProcess, stop_all

SLEEPER = [sys.executable, "-c", "import time; print('awake', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER[2],
]


@pytest.fixture
def server(tmp_path):
    server = ServerProcess("sleeper", tmp_path / "sleeper")
    yield server
    server.kill()


def _awake(server):
    server.wait_until(lambda: "awake" in server.log_path.read_text(), deadline=time.monotonic() + 20)


def test_a_started_server_is_found_by_another_object_on_its_directory(server):
    server.start(SLEEPER)

    other = ServerProcess("sleeper", server.directory)

    assert other.is_running
    assert other.pid == server.pid
    other.stop(grace_s=5)
    assert not server.is_running
    assert server.identity is None


def test_a_server_that_ignores_the_request_is_killed_after_the_grace_time(server):
    server.start(STUBBORN)
    _awake(server)

    server.stop(grace_s=0.2)

    assert not server.is_running


def test_a_process_that_took_over_the_pid_is_neither_reported_nor_killed(server):
    with subprocess.Popen(SLEEPER, stdout=subprocess.DEVNULL) as foreigner:
        try:
            started_at = psutil.Process(foreigner.pid).create_time() - 60
            server.directory.mkdir()
            (server.directory / "process.json").write_text(
                json.dumps({"name": "sleeper", "pid": foreigner.pid, "started_at": started_at})
            )

            assert not server.is_running
            server.stop(grace_s=5)
            server.kill()

            assert foreigner.poll() is None
        finally:
            foreigner.kill()


def test_a_server_that_ended_by_itself_does_not_run_even_before_it_is_reaped(server):
    server.start([sys.executable, "-c", ""])
    deadline = time.monotonic() + 20
    while server.is_running:
        assert time.monotonic() < deadline


def test_no_process_answers_to_a_pid_that_does_not_exist():
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait(20)

    assert ProcessIdentity(pid=gone.pid, started_at=time.time()).find() is None


def test_a_server_that_ends_before_it_is_ready_shows_its_last_words(server):
    server.start([sys.executable, "-c", "import sys; sys.exit('port is taken')"])

    with pytest.raises(StartFailed, match=r"sleeper ended before it was ready(.|\n)*server.log(.|\n)*port is taken"):
        server.wait_until(lambda: False, deadline=time.monotonic() + 20)


def test_a_server_that_is_not_ready_in_time_shows_its_last_words(server):
    server.start(SLEEPER)
    _awake(server)

    with pytest.raises(StartFailed, match=r"not ready in time(.|\n)*awake"):
        server.wait_until(lambda: False, deadline=time.monotonic())


def test_a_suspended_server_resumes(server):
    server.start(SLEEPER)
    _awake(server)

    server.suspend()
    assert psutil.Process(server.pid).status() == psutil.STATUS_STOPPED
    server.resume()
    assert psutil.Process(server.pid).status() != psutil.STATUS_STOPPED


def test_stopping_all_tells_all_before_it_waits_for_any(tmp_path, monkeypatch):
    servers = [ServerProcess(f"server {n}", tmp_path / str(n)) for n in range(3)]
    for server in servers:
        server.start(STUBBORN)
    for server in servers:
        _awake(server)

    done, terminate, wait_for_end = [], psutil.Process.terminate, process._wait_for_end

    def tell(told):
        done.append("told")
        terminate(told)

    def wait(waited_for, *, deadline):
        done.append(deadline)
        wait_for_end(waited_for, deadline=deadline)

    monkeypatch.setattr(psutil.Process, "terminate", tell)
    monkeypatch.setattr(process, "_wait_for_end", wait)
    stop_all(servers, grace_s=1.0)

    assert done[:3] == ["told"] * 3
    assert done.count(done[3]) == 3  # the same time for all, not one after the other
    assert not any(server.is_running for server in servers)
