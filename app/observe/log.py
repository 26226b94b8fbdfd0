"""Structured logs on standard error: JSON in production, coloured lines for people.

Libraries that log through Python's `logging`, the Kafka client among them, are heard from warnings up, as the event
`library_log`. No traceback shows local variables: they may hold secrets.
"""

import logging
import sys
from typing import Any, Literal

import orjson
import structlog


def configure_logs(level: str, style: Literal["console", "json"], **always: object) -> None:
    """Send every log line of this process to standard error in this style; `always` is in all of them."""

    def add_always(_logger: Any, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:  # noqa: ANN401 - structlog's own
        # a processor, since context variables do not reach the threads that are started later
        return {**always, **event}

    shared: list[structlog.typing.Processor] = [
        add_always,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    threshold = logging.getLevelNamesMapping()[level.upper()]
    if style == "json":
        structlog.configure(
            processors=[
                *shared,
                structlog.processors.ExceptionRenderer(
                    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
                ),
                structlog.processors.JSONRenderer(serializer=orjson.dumps),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(threshold),
            logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
            cache_logger_on_first_use=False,
        )
    else:
        structlog.configure(
            processors=[
                *shared,
                structlog.dev.ConsoleRenderer(
                    colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
                ),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(threshold),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
            cache_logger_on_first_use=False,
        )
    root = logging.getLogger()
    root.handlers = [*(handler for handler in root.handlers if not isinstance(handler, _Libraries)), _Libraries()]


class _Libraries(logging.Handler):
    """From `logging` into our own logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(record.levelno, "library_log", logger=record.name, message=record.getMessage())
