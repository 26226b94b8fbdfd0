"""Hands rows that stable has answered to a shadow process, and counts what becomes of them.

The stream thread only ever puts a finished batch into a place that is free, or counts its rows as dropped: it packs
nothing, sends nothing and waits for nothing. Places are free while the process is ready and its time budget lasts. All
else is done by a thread of its own: starting the process and starting it again, packing, sending, reading what it
says, and ending it when it says nothing for too long.

Of the rows offered under a page, each is counted once: agreed, disagreed, failed or dropped.

Longer than most files because what is offered, sent and not answered is one state, and all its ends have to count it.
"""

import math
import select
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Protocol

import structlog

from app import errors
from app.clock import Clock
from app.facts import ShadowCounted
from app.ports import ShadowObserver
from app.worker.allowance import Allowance
from app.worker.chain import Answered
from app.worker.shadow_line import (
    MOST_REPORT_BYTES,
    Frames,
    Kind,
    LineBroken,
    compared_of,
    frame,
    refused_of,
    rows_bytes,
)
from app.worker.shadow_offer import Offer, ShadowPage, chosen_of

READ_BYTES = 1 << 18
LOOK_EVERY_S = 0.25  # for what is due without anybody saying so
CLOSE_WITHIN_S = 10.0  # of the thread; its process is given twice `end_within_s` of them
DYING_S = 0.5  # between the end of its line and its end: how it ended is worth knowing
_OWN_WORDS = frozenset({"MemoryError", "ShadowFailed"})


class ShadowChild(Protocol):
    """A process that scores, and the line to it, which does not block."""

    line: socket.socket

    def end(self, within_s: float) -> str:
        """End it, by force after `within_s`; returns how it ended."""
        ...


@dataclass(frozen=True, slots=True)
class ShadowPolicy:
    """Bounds of one shadow.

    starts: of a process, for each page; the second comes after backoff_s, each later one after twice that.
    start_within_s, answer_within_s: a process that takes longer hangs; the second is for a batch, at the lowest
    priority. end_within_s: for what it has, once it is not wanted any more. places: batches handed over and not
    answered. most_bytes: of one batch, packed.
    """

    starts: int = 4
    backoff_s: float = 1.0
    start_within_s: float = 120.0
    answer_within_s: float = 30.0
    end_within_s: float = 2.0
    places: int = 2
    most_bytes: int = 32 * 1_048_576


class Shadow:
    """One pipeline's. `offer` on the stream thread; `follow` and `close` on any; `turn` on its own."""

    def __init__(
        self,
        launch: Callable[[ShadowPage], ShadowChild],
        policy: ShadowPolicy,
        clock: Clock,
        observer: ShadowObserver,
        *,
        on_thread: bool = True,
    ) -> None:
        """launch: starts a process for a page; raises OSError. on_thread: False for whoever calls `turn`."""
        self._launch, self._policy, self._clock, self._observer = launch, policy, clock, observer
        self._log = structlog.get_logger()
        self._on_thread = on_thread
        self._thread: Thread | None = None
        self._closing = Event()
        self._bell, self._ring = socket.socketpair()
        self._bell.settimeout(0.0)
        self._ring.settimeout(0.0)
        # shared with the stream thread; whole operations on a deque need no lock
        self._wanted: ShadowPage | None = None
        self._free: deque[None] = deque()
        self._offers: deque[Offer] = deque()
        # the thread's own
        self._page: ShadowPage | None = None
        self._child: ShadowChild | None = None
        self._frames = Frames(MOST_REPORT_BYTES)
        self._ready = False
        self._since = 0.0  # of the start, or of the last sign of life while it has something to do
        self._unsent = memoryview(b"")
        self._sent: deque[tuple[str, int]] = deque()  # candidate, rows
        self._starts = 0
        self._start_at: float | None = None
        self._time = Allowance(clock)

    # -- the stream thread -----------------------------------------------------------------------------------

    def offer(self, answered: Answered) -> None:
        """Take this batch, whose outputs were delivered, if there is room for it. Never waits, never raises."""
        page = self._wanted
        if page is None or (chosen := chosen_of(answered, page)) is None:
            return
        try:
            self._free.pop()
        except IndexError:
            self._count(page.candidate, dropped=chosen.count)
            return
        self._offers.append(chosen.offer())
        self._wake()

    # -- any thread ------------------------------------------------------------------------------------------

    def follow(self, page: ShadowPage | None) -> None:
        """From now on this page's candidate is the shadow; None: there is none."""
        self._wanted = page
        if page is not None and self._thread is None and self._on_thread:
            self._thread = Thread(target=self._run, name="shadow", daemon=True)
            self._thread.start()
        self._wake()

    def close(self) -> None:
        """End the process; what it has not answered counts as dropped."""
        self._closing.set()
        self._wake()
        if self._thread is not None:
            self._thread.join(CLOSE_WITHIN_S)
        elif not self._on_thread:
            self._leave()
        if self._thread is None or not self._thread.is_alive():
            self._bell.close()
            self._ring.close()

    def _wake(self) -> None:
        with suppress(OSError):  # it rings already; or all is over
            self._ring.send(b"!")

    # -- its own thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self.turn(LOOK_EVERY_S)
            except Exception as exc:  # noqa: BLE001 - whatever it is: a shadow is given up, a worker is not
                name = type(exc).__name__
                self._lost(name if isinstance(exc, errors.AppError) else "ShadowFailed", f"{name}: {exc}")
                self._closing.wait(self._policy.backoff_s)
        self._leave()

    def turn(self, wait_s: float) -> None:
        """Do what can be done now, then wait so long for something to do."""
        self._turn_page()
        self._start_if_due()
        self._pack()
        self._listen(self._until_there_is_time(wait_s))
        self._send()
        self._judge()
        self._make_room()

    def _turn_page(self) -> None:
        wanted, page = self._wanted, self._page
        if wanted is page:
            return
        if page is None or wanted is None or wanted.candidate != page.candidate:
            self._leave()
            self._start_at = None if wanted is None else self._clock.monotonic()
        elif self._child is None:  # the same candidate, and somebody has decided something: it is tried again
            self._start_at = self._clock.monotonic()
        self._starts = 0
        self._page = wanted
        self._time.grant(0.0 if wanted is None else wanted.budget_s)

    def _start_if_due(self) -> None:
        page = self._page
        if page is None or self._start_at is None or self._clock.monotonic() < self._start_at:
            return
        self._start_at, self._starts = None, self._starts + 1
        self._ready, self._frames, self._since = False, Frames(MOST_REPORT_BYTES), self._clock.monotonic()
        try:
            self._child = self._launch(page)
        except OSError as exc:
            self._lost("ShadowNotStarted", str(exc))

    def _pack(self) -> None:
        """What was offered goes onto the line, or is dropped: its page is past, or the process has gone."""
        while self._offers and not self._unsent:
            offer = self._offers.popleft()
            if not self._ready or self._page is None or offer.page.candidate != self._page.candidate:
                self._count(offer.page.candidate, dropped=offer.count)
                continue
            try:
                content = rows_bytes(offer.rows())
            except Exception:
                self._count(offer.page.candidate, failed=offer.count)
                raise
            if len(content) > self._policy.most_bytes:
                self._count(offer.page.candidate, dropped=offer.count)
                continue
            if not self._sent:
                self._since = self._clock.monotonic()
            self._sent.append((offer.page.candidate, offer.count))
            self._unsent = memoryview(frame(Kind.ROWS, content))
            self._send()

    def _send(self) -> None:
        while self._unsent and self._child is not None:
            try:
                self._unsent = self._unsent[self._child.line.send(self._unsent) :]
            except BlockingIOError:
                return
            except OSError:
                self._unsent = memoryview(b"")  # it has gone; reading tells

    def _listen(self, wait_s: float) -> None:
        line = self._child.line if self._child is not None else None
        heard = select.poll()  # unlike select(), for any number of open files
        heard.register(self._bell, select.POLLIN)
        if line is not None:
            heard.register(line, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        events = dict(heard.poll(_milliseconds(wait_s)))
        if self._bell.fileno() in events:
            with suppress(BlockingIOError):
                self._bell.recv(4096)
        if line is not None and events.get(line.fileno(), 0) & ~select.POLLOUT:
            self._read(line)

    def _read(self, line: socket.socket) -> None:
        try:
            came = line.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            came = b""
        if not came:
            self._lost("ShadowCrashed", "it ended by itself", DYING_S)
            return
        try:
            for kind, content in self._frames.feed(came):
                self._hear(kind, content)
                if self._child is None:
                    return
        except LineBroken as exc:
            self._lost("ShadowCrashed", f"it said {exc}")

    def _hear(self, kind: Kind, content: bytes) -> None:
        if kind is Kind.READY:
            self._ready = True
            self._log.info("shadow_ready", version=self._page.candidate if self._page else None)
        elif kind is Kind.REFUSED:
            refused = refused_of(content)
            known = refused.error in _OWN_WORDS or isinstance(getattr(errors, refused.error, None), type)
            self._lost(refused.error if known else "ShadowFailed", refused.message, DYING_S)
        elif kind is Kind.COMPARED and self._sent:
            version, rows = self._sent[0]
            compared = compared_of(content, rows)
            self._sent.popleft()
            self._since = self._clock.monotonic()
            self._time.spend(compared.seconds)
            fact = ShadowCounted(
                version,
                compared.agreed,
                compared.disagreed,
                compared.failed,
                model_seconds=compared.model_seconds,
                differences=compared.differences,
            )
            self._observer.shadow_counted(fact)
            if compared.unpublished:
                self._observer.shadow_failed(version, "NotPublished")
                self._log.warning("shadow_not_published", version=version, comparisons=compared.unpublished)
        else:
            raise LineBroken(f"a frame of kind {kind.name} that nobody waits for")

    def _judge(self) -> None:
        """A process that is silent for too long while there is something to say hangs."""
        if self._child is None:
            return
        silent_s = self._clock.monotonic() - self._since
        if not self._ready and silent_s > self._policy.start_within_s:
            self._lost("ShadowHung", f"it did not start within {self._policy.start_within_s:g} s")
        elif self._sent and silent_s > self._policy.answer_within_s:
            self._lost("ShadowHung", f"a batch was not answered within {self._policy.answer_within_s:g} s")

    def _make_room(self) -> None:
        """As many free places as there should be."""
        has_time = self._time.accrue()
        if self._page is None or not self._ready or not has_time:
            self._free.clear()
            return
        taken = len(self._sent) + len(self._offers)
        while len(self._free) + taken < self._policy.places:
            self._free.append(None)

    def _until_there_is_time(self, wait_s: float) -> float:
        due_in = self._time.due_in() if self._ready else 0.0
        return min(wait_s, due_in) if due_in else wait_s

    def _lost(self, error: str, message: str, dying_s: float = 0.0) -> None:
        """The process is of no use any more: end it, and start another one later if it may be."""
        page, child = self._page, self._child
        how = self._end(dying_s)
        if page is None:
            return
        version, again = page.candidate, self._starts < self._policy.starts
        backoff_s = self._policy.backoff_s * 2 ** (self._starts - 1)
        self._start_at = self._clock.monotonic() + backoff_s if again else None
        self._observer.shadow_failed(version, error)
        self._log.error(
            "shadow_lost",
            version=version,
            error=error,
            reason=message,
            process=how if child is not None else None,
            again_in_s=backoff_s if again else None,
        )
        if not again:
            self._observer.shadow_failed(version, "ShadowGivenUp")
            self._log.error("shadow_given_up", version=version, revision=page.revision, starts=self._starts)

    def _end(self, within_s: float, *, unanswered: str = "failed") -> str:
        """No process, and nothing under way: what it had failed with it, what it had not yet is dropped."""
        child, self._child, self._ready = self._child, None, False
        self._free.clear()
        how = child.end(within_s) if child is not None else ""
        while self._sent:
            version, rows = self._sent.popleft()
            self._count(version, **{unanswered: rows})
        self._unsent = memoryview(b"")
        while self._offers:
            offer = self._offers.popleft()
            self._count(offer.page.candidate, dropped=offer.count)
        return how

    def _leave(self) -> None:
        """The process may finish what it has, for a while."""
        child = self._child
        if child is not None and self._ready:
            with suppress(OSError):
                child.line.shutdown(socket.SHUT_WR)
            until = self._clock.monotonic() + self._policy.end_within_s
            while self._sent and not self._unsent and self._child is child and self._clock.monotonic() < until:
                heard = select.poll()
                heard.register(child.line, select.POLLIN)
                if not heard.poll(_milliseconds(self._policy.end_within_s)):
                    break
                self._last_words(child.line)
        self._end(self._policy.end_within_s if self._ready and not self._sent else 0.0, unanswered="dropped")

    def _last_words(self, line: socket.socket) -> None:
        try:
            came = line.recv(READ_BYTES)
            if came:
                for kind, content in self._frames.feed(came):
                    self._hear(kind, content)
                return
        except (OSError, LineBroken):
            pass
        self._end(0.0, unanswered="dropped")

    def _count(self, version: str, *, failed: int = 0, dropped: int = 0) -> None:
        self._observer.shadow_counted(ShadowCounted(version, failed=failed, dropped=dropped))


def _milliseconds(seconds: float) -> int:
    """What poll() waits at least so long for."""
    return math.ceil(max(seconds, 0.0) * 1000)
