"""What was kept, read again.

A value that cannot be read is told and dropped: better one value less than a monitor that can never start again.
"""

from collections.abc import Callable
from typing import TypeVar

import structlog

from app.errors import DecodeFailed

T = TypeVar("T")


def read_kept(table: str, key: bytes, value: bytes, read: Callable[[bytes], T]) -> T | None:
    """What `read` makes of the value; None if that cannot be."""
    try:
        return read(value)
    except (DecodeFailed, ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as exc:
        structlog.get_logger().error(
            "kept_value_dropped", table=table, key=key[:100].decode("utf-8", "replace"), error=str(exc)[:200]
        )
        return None
