"""From ended spans to a collector, on a thread of its own: whatever the collector does, nobody else waits for it.

A span that finds no room in the queue, and one whose export failed, is lost, and counted as such.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Literal

import structlog
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from app.observe.tracing_settings import TracingSettings

if TYPE_CHECKING:
    from requests import Response

Fate = Literal["exported", "failed", "dropped"]
Counted = Callable[[Fate, int], None]

EXPORT_EVERY_S = 1.0
EXPORT_SPANS = 512  # at a time, and sooner once there are so many: about 50 kB
LONGEST_LOCATION = 200  # characters, of where a redirect points
LAST_WORD_S = 0.25  # for an export that is under way when the time to close is over


class SpanQueue(SpanProcessor):
    """Bounded; takes spans from any thread and gives them to the exporter.

    close_timeout_s: what `shutdown` may take. counted: told what became of how many spans, on any thread.
    """

    def __init__(self, exporter: SpanExporter, most: int, close_timeout_s: float, counted: Counted) -> None:
        self._exporter, self._most, self._close_timeout_s = exporter, most, close_timeout_s
        self._counted, self._words = counted, _last_words()
        self._spans: deque[ReadableSpan] = deque()
        self._wake, self._closed = Event(), Event()
        self._failing = False
        self._log = structlog.get_logger()
        self._thread = Thread(target=self._run, name="span-export", daemon=True)  # a stuck one keeps no process alive
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        """Never waits, never raises."""
        if self._closed.is_set() or len(self._spans) >= self._most:
            self._counted("dropped", 1)
            return
        self._spans.append(span)
        if len(self._spans) >= EXPORT_SPANS:
            self._wake.set()

    def shutdown(self) -> None:
        """Export what is there, within the time for it; what is left then is dropped. Any number of times."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._wake.set()
        self._thread.join(self._close_timeout_s)
        Thread(target=self._end_exporter, name="span-export-end", daemon=True).start()  # ends waits between retries
        self._thread.join(LAST_WORD_S)
        while left := self._take():
            self._counted("dropped", len(left))

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Whether everything was handed to the exporter in this time."""
        deadline = time.monotonic() + timeout_millis / 1000
        self._wake.set()
        while self._spans and time.monotonic() < deadline:
            self._closed.wait(0.01)
        return not self._spans

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.wait(EXPORT_EVERY_S)
            self._wake.clear()
            self._export_all()
        self._export_all()

    def _export_all(self) -> None:
        while some := self._take():
            problem = self._export(some)
            self._counted("failed" if problem else "exported", len(some))
            self._tell(problem)

    def _take(self) -> list[ReadableSpan]:
        """The oldest, EXPORT_SPANS at most. Both threads may take: each span is one's alone."""
        some: list[ReadableSpan] = []
        with suppress(IndexError):  # the length is no promise: the other may have taken them
            while len(some) < EXPORT_SPANS:
                some.append(self._spans.popleft())
        return some

    def _export(self, spans: Sequence[ReadableSpan]) -> str:
        """Why it failed, or ""."""
        self._words.last = ""
        try:
            if self._exporter.export(spans) is SpanExportResult.SUCCESS:
                return ""
        except Exception as exc:  # noqa: BLE001 - whatever a collector answers, the worker goes on
            return f"{type(exc).__name__}: {exc}"[:500]
        return self._words.last or "the exporter does not say why"

    def _end_exporter(self) -> None:
        try:
            self._exporter.shutdown()
        except Exception as exc:  # noqa: BLE001 - the process is about to end
            self._log.debug("span_exporter_not_closed", reason=str(exc))

    def _tell(self, problem: str) -> None:
        """Once for each change, not for each export."""
        if problem and not self._failing:
            self._log.warning("spans_not_exported", reason=problem)
        elif not problem and self._failing:
            self._log.info("spans_exported_again")
        self._failing = bool(problem)


def otlp_exporter(tracing: TracingSettings) -> SpanExporter:
    """To the collector of the settings; connects to nothing yet. Raises BadSettings, ImportError without the extra."""
    headers = tracing.sent_headers()
    if tracing.protocol == "grpc":
        return _grpc_exporter(tracing, headers)
    # here, because each takes a tenth of a second to import, and a worker needs one at most
    import requests  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    session = requests.Session()
    session.hooks["response"].append(_refuse_redirect)
    return OTLPSpanExporter(
        endpoint=tracing.url(),
        certificate_file=str(tracing.ca_file) if tracing.ca_file else None,
        headers=headers,
        timeout=tracing.timeout_s,
        compression=Compression.Gzip,
        session=session,
    )


def _refuse_redirect(response: "Response", **_: Any) -> None:  # noqa: ANN401 - the library's own
    """The library follows none and yet counts the spans as exported. Raises InvalidURL, which it does not retry."""
    if 300 <= response.status_code < 400:
        from requests.exceptions import InvalidURL  # noqa: PLC0415

        response.close()
        where = repr(response.headers.get("location", "")[:LONGEST_LOCATION])
        raise InvalidURL(f"status {response.status_code}: the collector is somewhere else, at {where}")


def _grpc_exporter(tracing: TracingSettings, headers: dict[str, str]) -> SpanExporter:
    import grpc  # noqa: PLC0415 - as above
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    insecure = tracing.url().startswith("http://")
    credentials: grpc.ChannelCredentials | None = None
    if not insecure:
        credentials = grpc.ssl_channel_credentials(tracing.ca_file.read_bytes() if tracing.ca_file else None)
    return OTLPSpanExporter(
        endpoint=tracing.url(),
        insecure=insecure,
        credentials=credentials,
        headers=headers,
        timeout=tracing.timeout_s,
        compression=grpc.Compression.Gzip,
    )


class _LastWords(logging.Handler):
    """What the exporter's library said last: its results do not say why."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()[:500]


def _last_words() -> _LastWords:
    """In the place of a line for each attempt, from the library itself."""
    words, library = _LastWords(), logging.getLogger("opentelemetry")
    library.handlers, library.propagate = [words], False
    return words
