"""`inference-worker top`: a worker's snapshots, on a terminal or line by line."""

import time
from collections.abc import Callable
from contextlib import suppress

import orjson
from rich.console import Console
from rich.live import Live

from app.errors import NotReachable
from app.observe.endpoint import Unreadable, figures_expected
from app.observe.live_stream import LiveStream, Snapshot
from app.observe.terminal import line, whole

TRY_AGAIN_S = 1.0


def show_worker(url: str, *, once: bool, as_json: bool, console: Console) -> None:
    """Until interrupted, or once. Raises BadSettings for a URL that is none, NotReachable if nobody answers there.

    On a terminal that can be drawn on a worker that is lost is waited for; else raises Unreadable.
    """
    stream = LiveStream(url)
    with suppress(KeyboardInterrupt):
        if once:
            # the first has no rates unless somebody else looks as well: they are between two looks
            _first(stream, lambda snapshot: _told(snapshot, once=True, as_json=as_json, console=console))
        elif as_json or not console.is_terminal or console.is_dumb_terminal:
            _follow(stream, lambda snapshot: _told(snapshot, once=False, as_json=as_json, console=console))
        else:
            _on_the_screen(stream, console)


def _told(snapshot: Snapshot, *, once: bool, as_json: bool, console: Console) -> None:
    with figures_expected():
        if as_json:
            console.file.write(orjson.dumps(snapshot).decode() + "\n")
            console.file.flush()
        elif once:
            console.print(whole(snapshot))
        else:
            console.print(line(snapshot), markup=False, highlight=False, soft_wrap=True)


def _first(stream: LiveStream, tell: Callable[[Snapshot], None]) -> None:
    try:
        for snapshot in stream.snapshots():
            if snapshot.get("rate_s"):
                tell(snapshot)
                return
    except Unreadable as exc:
        raise _not_reachable(stream, exc) from exc
    raise _not_reachable(stream, "it ended")


def _follow(stream: LiveStream, tell: Callable[[Snapshot], None]) -> None:
    heard = False
    try:
        for snapshot in stream.snapshots():
            tell(snapshot)
            heard = True
    except Unreadable as exc:
        if heard:
            raise
        raise _not_reachable(stream, exc) from exc
    if heard:
        raise Unreadable(f"{stream.name}: the worker has ended")


def _on_the_screen(stream: LiveStream, console: Console) -> None:
    newest: Snapshot | None = None
    heard_at = 0.0
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as screen:
        while True:
            lost = "the worker has ended"
            try:
                for snapshot in stream.snapshots():
                    newest, heard_at = snapshot, time.monotonic()
                    with figures_expected():
                        screen.update(whole(newest), refresh=True)
            except Unreadable as exc:
                if newest is None:
                    raise _not_reachable(stream, exc) from exc
                lost = str(exc)
            if newest is not None:
                screen.update(whole(newest, lost=lost, age_s=time.monotonic() - heard_at), refresh=True)
            time.sleep(TRY_AGAIN_S)


def _not_reachable(stream: LiveStream, why: object) -> NotReachable:
    return NotReachable(f"no worker's live page at {stream.name}: {why}")
