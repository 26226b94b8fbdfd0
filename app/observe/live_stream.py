"""The snapshots that a worker's `/live` sends, read from outside. What comes is not trusted to be one."""

from collections.abc import Iterator
from typing import Any

import orjson

from app.observe.endpoint import Endpoint, Unreadable
from app.observe.snapshot import FORMAT

SILENT_S = 5.0  # a worker says something each second

Snapshot = dict[str, Any]


class LiveStream:
    """One worker's."""

    def __init__(self, url: str, silent_s: float = SILENT_S) -> None:
        """url: of the worker's HTTP port. Raises BadSettings for an address that cannot be asked."""
        self._endpoint = Endpoint(url, silent_s)
        self.name = self._endpoint.name

    def snapshots(self) -> Iterator[Snapshot]:
        """One a second until the worker ends or is stopped. Raises Unreadable if it does not answer or falls silent."""
        for line in self._endpoint.lines("/live"):
            if line.startswith("data: {}"):
                return
            if line.startswith("data: "):
                yield _snapshot(line.removeprefix("data: "))


def _snapshot(text: str) -> Snapshot:
    try:
        found = orjson.loads(text)
    except ValueError as exc:
        raise Unreadable(f"it does not send snapshots: {exc}") from exc
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise Unreadable(f"it does not send snapshots of format {FORMAT}")
    return found
