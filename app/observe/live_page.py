"""The live page: a document, its scripts and styles, and the events that fill it. Everything comes from here.

No address outside this worker is named, and a policy forbids the browser to run or load anything else: what a dead
letter says can only ever be text.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from app.clock import Clock
from app.observe.live import EVERY_S, LiveFeed
from app.observe.look import Watched
from app.observe.snapshot import Snapshots, WorkerFacts

FOLDER = Path(__file__).parent / "page"
FILES = {
    "live.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "theme.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "uplot/uPlot.iife.min.js": "text/javascript; charset=utf-8",
    "uplot/uPlot.min.css": "text/css; charset=utf-8",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class LivePage:
    """`GET /`, its files below `/page`, and `/live`."""

    def __init__(
        self,
        watched: Watched,
        facts: WorkerFacts,
        clock: Clock,
        alive: Callable[[], str | None],
        ready: Callable[[], str | None],
        *,
        every_s: float = EVERY_S,
    ) -> None:
        """alive, ready: what the probes say."""
        snapshots = Snapshots(watched, facts, clock)
        self._feed = LiveFeed(lambda: snapshots.make(alive=alive(), ready=ready()), snapshots.forget, every_s=every_s)

    def routes(self) -> list[BaseRoute]:
        """What to serve."""
        return [
            Route("/", _document),
            Route("/page/{name:path}", _file),
            Route("/live", self._feed, methods=["GET"]),
        ]

    def close(self) -> None:
        """Let the viewers go."""
        self._feed.close()


@cache
def _content(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def _document(_request: Request) -> Response:
    return Response(_content("index.html"), media_type="text/html; charset=utf-8", headers=_HEADERS)


def _file(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in FILES:  # a closed list: no path is made of what is asked for
        return Response(status_code=404)
    return Response(_content(name), media_type=FILES[name], headers=_HEADERS)
