"""Look-ups of writer schemas that hold nobody up for long.

A registry answers in a millisecond, or, when it is away, after seconds of time-outs. Each look-up runs on a thread
of its own; the caller waits a moment for it and otherwise asks again later.
"""

from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread

from app.clock import Clock
from app.errors import SchemaRegistryUnavailable
from app.ports import SchemaSource

AT_ONCE = 8  # ids nobody knows cost more than half a second each, and a broken producer may send many
PATIENCE_S = 0.25  # far above a registry's usual answer, far below any poll interval
IMPATIENT_FOR_S = 1.0  # after waiting in vain: others' records must not wait again and again
MOST_UNDER_WAY = 1_000  # a producer that makes up ids must not fill the memory


class BackgroundLookups:
    """A SchemaSource in front of a slow one. One thread only."""

    def __init__(self, schemas: SchemaSource, clock: Clock) -> None:
        self._schemas, self._clock = schemas, clock
        self._asked: SimpleQueue[tuple[bytes, Future[str]]] = SimpleQueue()
        # daemons: at the end of the process nobody waits for a registry
        for number in range(AT_ONCE):
            Thread(target=self._look_up, name=f"schema-lookup-{number}", daemon=True).start()
        self._under_way: dict[bytes, Future[str]] = {}
        self._patient_from = 0.0

    def by_header(self, header: bytes) -> str:
        """The JSON text of the writer schema. Raises DecodeFailed, or SchemaRegistryUnavailable while not known."""
        future = self._under_way.get(header)
        if future is None:
            self._make_room()
            future = self._under_way[header] = Future()
            self._asked.put((header, future))
        now = self._clock.monotonic()
        try:
            text = future.result(PATIENCE_S if now >= self._patient_from else 0)
        except TimeoutError:
            self._patient_from = now + PATIENCE_S + IMPATIENT_FOR_S
            raise SchemaRegistryUnavailable(f"the schema of header {header.hex()} is still being looked up") from None
        except BaseException:
            del self._under_way[header]
            raise
        del self._under_way[header]
        return text

    def _look_up(self) -> None:
        while True:
            header, future = self._asked.get()
            try:
                future.set_result(self._schemas.by_header(header))
            except BaseException as exc:  # noqa: BLE001 - raised again by whoever asks
                future.set_exception(exc)

    def _make_room(self) -> None:
        """Answers nobody came back for, their partitions having gone elsewhere, are forgotten."""
        if len(self._under_way) >= MOST_UNDER_WAY:
            self._under_way = {header: future for header, future in self._under_way.items() if not future.done()}
        if len(self._under_way) >= MOST_UNDER_WAY:
            raise SchemaRegistryUnavailable(f"{MOST_UNDER_WAY} schemas are being looked up already")
