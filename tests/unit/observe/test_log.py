"""Logs in either style: what libraries say is in them, and no traceback shows a value."""

import json
import logging
import sys
import threading

import pytest
import structlog

from app.observe.log import configure_logs

CANARY = "c4n4ry-53cr3t"


pytestmark = pytest.mark.usefixtures("logs_as_they_were")


def fail(password):
    raise RuntimeError("boom")


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_traceback_shows_no_local_variable(capfdbinary, style):
    configure_logs("debug", style)
    try:
        fail("-".join(["c4n4ry", "53cr3t"]))
    except RuntimeError:
        structlog.get_logger().exception("crashed")
    sys.stderr.flush()
    said = capfdbinary.readouterr().err.decode()
    assert "crashed" in said
    assert "boom" in said
    assert CANARY not in said


@pytest.mark.parametrize("style", ["console", "json"])
def test_what_is_always_there_is_there_on_every_thread(capfdbinary, style):
    configure_logs("info", style, slot=3)
    thread = threading.Thread(target=structlog.get_logger().info, args=("elsewhere",))
    thread.start()
    thread.join()
    logging.getLogger("librdkafka").critical("refused")
    sys.stderr.flush()
    lines = capfdbinary.readouterr().err.decode().splitlines()
    assert len(lines) == 2
    assert all("slot=3" in line or '"slot":3' in line for line in lines)


def test_what_the_kafka_client_logs_is_in_our_format(capfdbinary):
    configure_logs("info", "json")
    logging.getLogger("librdkafka").critical("FATAL [thrd:main]: %s", "refused")
    sys.stderr.flush()
    (line,) = capfdbinary.readouterr().err.decode().splitlines()
    told = json.loads(line)
    assert told.pop("timestamp")
    assert told == {
        "event": "library_log",
        "level": "critical",
        "logger": "librdkafka",
        "message": "FATAL [thrd:main]: refused",
    }


def test_libraries_are_heard_from_warnings_up_and_once(capfdbinary):
    configure_logs("debug", "console")
    configure_logs("debug", "json")
    logging.getLogger("httpx2").info("GET http://…")
    logging.getLogger("httpx2").warning("slow")
    sys.stderr.flush()
    assert len(capfdbinary.readouterr().err.splitlines()) == 1
