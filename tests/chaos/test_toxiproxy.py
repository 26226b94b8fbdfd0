"""The proxies themselves: what they pass on, what they keep back, and that they heal."""

import socket
import threading

import pytest

from deploy.local.errors import StackError
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.toxiproxy import Toxic, Toxiproxy

pytestmark = pytest.mark.broker  # it is built on first use, which needs the network


@pytest.fixture
def echo_port():
    """Of a server that says back what it hears."""

    def serve(connection):
        with connection:
            while heard := connection.recv(100):
                connection.sendall(heard)

    def listen():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # closed: the test is over
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server((LOOPBACK, 0)) as server:
        threading.Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(echo_port, tmp_path):
    """(the server, the port of its proxy before the echo)."""
    (port,) = free_ports(1)
    with Toxiproxy(tmp_path) as server:
        server.add_proxy("echo", port=port, server_port=echo_port)
        yield server, port


def said_back(port, timeout_s=30.0):
    """What comes back for a word."""
    with socket.create_connection((LOOPBACK, port), timeout_s) as connection:
        connection.sendall(b"word")
        return connection.recv(100)


def test_what_is_said_goes_through_and_comes_back(proxy):
    server, port = proxy

    assert server.proxies() == {"echo"}
    assert said_back(port) == b"word"


def test_a_silent_direction_is_silent_until_it_is_healed(proxy):
    server, port = proxy

    server.add_toxic("echo", Toxic("timeout", "downstream", (("timeout", 0),)))
    with pytest.raises(TimeoutError):
        said_back(port, timeout_s=0.5)
    server.heal()
    assert said_back(port) == b"word"


def test_a_proxy_that_is_off_refuses_connections_until_it_is_healed(proxy):
    server, port = proxy

    server.switch_off("echo")
    with pytest.raises(ConnectionRefusedError):
        said_back(port)
    server.heal()
    assert said_back(port) == b"word"


def test_a_port_is_free_again_when_its_proxy_is_removed(proxy):
    server, port = proxy

    server.remove_proxy("echo")

    assert server.proxies() == set()
    with pytest.raises(ConnectionRefusedError):
        said_back(port)


def test_an_order_that_cannot_be_carried_out_names_itself_and_the_reason(proxy):
    server, _ = proxy

    with pytest.raises(StackError, match=r"POST /proxies/nobody/toxics: 404 .*proxy not found"):
        server.add_toxic("nobody", Toxic("timeout", "downstream"))
