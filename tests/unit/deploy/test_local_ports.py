import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.ports import LOOPBACK, free_ports, is_free, is_open


@pytest.fixture
def listener():
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server


def test_free_ports_are_different_and_free():
    ports = free_ports(20)

    assert len(set(ports)) == 20
    assert all(is_free(port) and not is_open(port) for port in ports)


def test_free_ports_keep_clear_of_outgoing_connections():
    assert all(20_000 <= port < 30_000 for port in free_ports(50))


ANOTHER = """
import sys
from deploy.local import ports
ports._FIRST_PORT = ports._LAST_PORT = int(sys.argv[1])
try:
    print(ports.free_ports(1))
except OSError:
    print("none")
"""


def test_no_other_process_is_given_a_port_before_its_server_listens():
    (port,) = free_ports(1)

    other = subprocess.run(
        [sys.executable, "-c", ANOTHER, str(port)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )

    assert is_free(port)
    assert other.stdout.strip() == "none"


def test_a_port_somebody_listens_on_is_open_and_not_free(listener):
    port = listener.getsockname()[1]

    assert is_open(port)
    assert not is_free(port)
