"""A worker process's line to its supervisor: what it reports, and how it learns that it is alone.

The line is one end of a pair of sockets. The process writes a report about once a second, one line of JSON; it
reads nothing but the end of the stream, which comes when the supervisor has died, however it died.
"""

import json
import os
import select
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import astuple
from threading import Thread

import structlog

from app.exit_status import EXIT_DRAINED
from app.facts import ProcessReport, Refused, Sample
from app.worker.process import WorkerProcess

REPORT_EVERY_S = 1.0
UNTIL_READY_S = 0.25  # so that nobody waits a second more for a start
BEGIN_WITHIN_S = 300.0  # a start asks a broker, a registry and a model store, each within seconds
SEND_WITHIN_S = 5.0  # a frozen supervisor keeps nobody from ending; the torn line is one it cannot read


def report_line(report: ProcessReport) -> bytes:
    """A report as it goes over the line, with its line feed. Not orjson, to which NaN is null."""
    refused = [astuple(item) for item in report.refused]
    return json.dumps([report.stuck, report.awaits, report.samples, refused]).encode() + b"\n"


def report_of(line: bytes) -> ProcessReport:
    """The report again. Raises ValueError or TypeError if it is none."""
    stuck, awaits, samples, refused = json.loads(line)
    return ProcessReport(
        stuck,
        awaits,
        tuple((name, tuple((key, text) for key, text in labels), value) for name, labels, value in samples),
        tuple(Refused(*item) for item in refused),
    )


class SupervisorLine:
    """Reports from the first moment on; a process that has not begun ends at once when it is alone."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.settimeout(SEND_WITHIN_S)
        self._process: WorkerProcess | None = None
        self._samples: Callable[[], tuple[Sample, ...]] = tuple
        self._refused: Callable[[], Iterable[Refused]] = tuple
        self._closing = False
        self._began = time.monotonic()
        self._thread = Thread(target=self._run, name="supervisor-line", daemon=True)
        self._thread.start()

    def begin(
        self,
        process: WorkerProcess,
        samples: Callable[[], tuple[Sample, ...]],
        refused: Callable[[], Iterable[Refused]] = tuple,
    ) -> None:
        """From now on report on this one; it is drained when the supervisor dies. refused: its last dead letters."""
        self._samples, self._refused = samples, refused
        self._process = process

    def close(self) -> None:
        """Say the last word: everything that was counted."""
        self._closing = True
        self._socket.shutdown(socket.SHUT_RD)  # wakes the thread
        self._thread.join()
        self._send("ended")
        self._socket.close()

    def _run(self) -> None:
        awaits: str | None = "starting"
        while True:
            heard, _, _ = select.select([self._socket], [], [], UNTIL_READY_S if awaits else REPORT_EVERY_S)
            if self._closing:
                return
            if heard and not self._hears():
                self._alone()
                return
            process = self._process
            awaits = process.ready() if process is not None else "starting"
            self._send(awaits)

    def _hears(self) -> bool:
        try:
            return bool(self._socket.recv(1))
        except OSError:
            return False

    def _send(self, awaits: str | None) -> None:
        process = self._process
        stuck = process.alive() if process is not None else self._starts_for_ever()
        try:
            self._socket.sendall(report_line(ProcessReport(stuck, awaits, self._samples(), tuple(self._refused()))))
        except OSError:
            return  # there is nobody left; if so, the next turn finds out

    def _starts_for_ever(self) -> str | None:
        took_too_long = time.monotonic() - self._began > BEGIN_WITHIN_S
        return f"not started after {BEGIN_WITHIN_S:g} s" if took_too_long else None

    def _alone(self) -> None:
        structlog.get_logger().error("supervisor_gone")
        if self._process is None:
            os._exit(EXIT_DRAINED)  # nothing was consumed
        self._process.stop()
