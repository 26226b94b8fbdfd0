"""deploy/load/locustfile.py under the real Locust, in a process of its own: it patches all of a process's sockets."""

import json
import subprocess
import sys
import threading
import time

from online_server import OnlineServer

ENOUGH = 60  # requests, and one of each kind, answered some time before the end


def enough(seen):
    """seen: (request id, key); a batch has no key."""
    keys = [key for _, key in seen[:-ENOUGH]]
    return None in keys and any(keys)


def test_its_users_ask_and_nothing_fails(tmp_path, pytestconfig):
    command = [sys.executable, "-m", "locust", "-f", pytestconfig.rootpath / "deploy/load/locustfile.py"]
    with OnlineServer() as server:
        users = subprocess.Popen(
            [*command, "--host", server.url, "--headless", "-u", "20", "-r", "100", "--json"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 100
            while not enough(server.behaviour.seen) and users.poll() is None and time.monotonic() < deadline:
                threading.Event().wait(0.05)
            users.terminate()
            said, complaints = users.communicate(timeout=60)
        finally:
            users.kill()
            users.wait()
    assert users.returncode == 0, complaints[-3000:]
    found = {entry["name"]: entry for entry in json.loads(said)}
    assert set(found) == {"/predict", "/predict/batch"}
    assert {name: entry["num_failures"] for name, entry in found.items()} == {"/predict": 0, "/predict/batch": 0}
    assert {key for _, key in server.behaviour.seen if key is not None}
