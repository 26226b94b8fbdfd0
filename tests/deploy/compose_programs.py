"""What the healthchecks of docker-compose.yml call inside images, as far as they use it: wget and redis-cli."""

import socket
import sys
import urllib.request


def wget(*arguments):
    """`wget -q --spider URL`."""
    *options, url = arguments
    assert options == ["-q", "--spider"], options
    with urllib.request.urlopen(url, timeout=5):
        pass


def redis_cli(*arguments):
    """`redis-cli -e -p PORT ping`."""
    *options, port, order = arguments
    assert (options, order) == (["-e", "-p"], "ping"), arguments
    with socket.create_connection(("127.0.0.1", int(port)), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(16).startswith(b"+PONG")


if __name__ == "__main__":
    {"wget": wget, "redis-cli": redis_cli}[sys.argv[1]](*sys.argv[2:])
