"""The one place with Redis: keys and values shared between workers, within a budget of time or not at all.

A socket's time-outs do not bound an answer: a name may take seconds to resolve, and an answer that comes in drips
starts each one anew. So a connection belongs to a thread of its own, and who asks waits for that thread no longer than
the budget. Look-ups and writes have one each: no look-up waits behind a write. After a few failures in a row
nobody is asked until a probe, which no batch waits for, was answered within the budget.

It may answer anything: what is not a list of byte strings, one or none a key, is a failed look-up.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from types import NoneType
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.clock import Clock
from app.models.shared_answers import Unanswered

FAILURES = 3  # in a row; one may be a pause of this machine, three cost a batch each no more than the budget
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0  # at worst a failed look-up every 8 s: a thousandth of the time
SOCKET_TIMEOUT_S = 0.5  # what the thread waits for; nobody waits for the thread
STUCK_S = 2.0  # far above that: an answer in drips; its connection is closed under it
MOST_WAITING = 8  # writes of as many batches; a Redis that takes them slower than we score goes without some
MOST_KEYS = 1_000  # in one script: a Redis does nothing else meanwhile, and this takes it about a millisecond

# SET with an expiry for many keys in one command: MSET has none, and a pipeline of 512 SETs takes ten times as long,
# most of it with the interpreter lock (docs/CACHE.md).
_SET_ALL = "for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i + 1], 'PX', ARGV[1]) end"


@dataclass(frozen=True, slots=True)
class RedisPolicy:
    """Where the Redis is, how long a batch may wait for it, and how long it keeps what it is given.

    url: redis://, rediss:// or unix://, without credentials. ca_file: PEM file of the authorities to trust.
    """

    url: str
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None
    ttl_s: float = 300.0
    budget_s: float = 0.003


class Breaker:
    """Whether to ask. Open at first: a probe has to be answered before anybody waits. Any thread.

    Open after FAILURES in a row, or after a first one since a probe. Then a probe is due after a pause, which
    doubles until a look-up succeeds: that a probe is answered proves little of a Redis that is too slow.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._left = 0  # failures until it opens; 0 is open
        self._pause_s = FIRST_PAUSE_S
        self._probe_at: float | None = clock.monotonic()  # None while one is under way

    @property
    def closed(self) -> bool:
        """Whether to ask now."""
        return self._left > 0

    def takes_probe(self) -> bool:
        """Whether a probe is due; then it is the caller's to make, and to say how it ended."""
        with self._lock:
            if self.closed or self._probe_at is None or self._clock.monotonic() < self._probe_at:
                return False
            self._probe_at = None
            return True

    def probe_ended(self, *, well: bool) -> None:
        """A probe was answered in time, or not."""
        with self._lock:
            if well:
                self._left = 1
            else:
                self._open()

    def succeeded(self) -> None:
        """A look-up was answered in time."""
        with self._lock:
            if self.closed:
                self._left, self._pause_s = FAILURES, FIRST_PAUSE_S

    def failed(self) -> bool:
        """A look-up was not; tells whether that opened the breaker."""
        with self._lock:
            if self._left == 0:
                return False  # another thread's look-up failed first
            self._left -= 1
            opened = self._left == 0
            if opened:
                self._open()
            return opened

    def _open(self) -> None:
        self._left = 0
        self._probe_at = self._clock.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)


Call = Callable[[redis.Redis], Any]
Ended = Callable[[Any, float], None]  # what the call gave or raised, and how long it took


class Line:
    """One connection, and the daemon thread that alone uses it: calls, one after another.

    Whatever a call raises ends the connection: what is left of a broken answer must not be read as the next one.
    """

    def __init__(self, client: redis.Redis, name: str, most_waiting: int) -> None:
        self._client, self._most_waiting = client, most_waiting
        self._calls: SimpleQueue[tuple[Call, Ended, float] | None] = SimpleQueue()
        self._since: float | None = None
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def post(self, call: Call, ended: Ended, *, within_s: float = float("inf")) -> bool:
        """Make this call and tell how it ended, on the line's thread; False if too many wait, or one for too long.

        within_s: if its turn comes later it is not made; nothing is told.
        """
        self.give_up_if_stuck()
        if self._calls.qsize() >= self._most_waiting:
            return False
        self._calls.put((call, ended, time.monotonic() + within_s))
        return True

    def give_up_if_stuck(self) -> None:
        """End a call that takes far too long."""
        since = self._since
        if since is not None and time.monotonic() - since > STUCK_S:
            self._client.connection_pool.disconnect()  # wakes the thread, with an error

    def ask(self, call: Call, timeout_s: float) -> Any:  # noqa: ANN401 - a Redis may answer anything
        """What the call gives or raises; TimeoutError if that is not known in time."""
        answer: SimpleQueue[Any] = SimpleQueue()
        if not self.post(call, lambda outcome, _: answer.put(outcome), within_s=timeout_s):
            raise TimeoutError("earlier questions have no answer yet")
        try:
            outcome = answer.get(timeout=timeout_s)
        except Empty:
            raise TimeoutError(f"no answer within {timeout_s:g} s") from None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self) -> None:
        """End the thread and its connection, whatever is under way; does not wait."""
        self._calls.put(None)
        self._client.connection_pool.disconnect()

    def _run(self) -> None:
        while (job := self._calls.get()) is not None:
            call, ended, until = job
            self._since = started = time.monotonic()
            if started > until:
                self._since = None
                continue
            try:
                outcome = call(self._client)
            except Exception as exc:  # noqa: BLE001 - garbage makes a client raise anything; it ends one call, not the thread
                outcome = exc
                self._client.connection_pool.disconnect()
            self._since = None
            ended(outcome, time.monotonic() - started)
        self._client.close()


class RedisStore:
    """A `SharedStore` in Redis. Any thread.

    Says nothing wrong about what it was not asked to keep, and never raises: a Redis that is away, slow or insane
    is as good as empty. notice: told why it is not asked any more, and None when it is again; any thread.
    """

    def __init__(self, policy: RedisPolicy, clock: Clock, notice: Callable[[str | None], None]) -> None:
        self._policy, self._notice = policy, notice
        self._noticed: bool | None = None  # whether it was said to answer
        self._breaker = Breaker(clock)
        self._lookups = Line(_client(policy), "redis-lookups", MOST_WAITING)
        self._writes = Line(_client(policy), "redis-writes", MOST_WAITING)
        self._probe_if_due()

    def get(self, keys: Sequence[bytes]) -> list[bytes | None] | Unanswered:
        """The value of each key, or None; one MGET, of which nobody waits longer than the budget."""
        if not self._breaker.closed:
            self._lookups.give_up_if_stuck()  # a probe may wait behind it, and nobody posts another
            self._probe_if_due()
            return Unanswered.SKIPPED
        try:
            values = _values(self._lookups.ask(lambda client: client.mget(keys), self._policy.budget_s), len(keys))
        except Exception as exc:  # noqa: BLE001 - as in Line: what a client may raise has no end
            if self._breaker.failed():
                self._say(exc)
            return Unanswered.FAILED
        self._breaker.succeeded()
        return values

    def put(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Write them while nobody waits; not at all if Redis is not asked now, or is behind with writing."""
        if not self._breaker.closed:
            return
        ttl_ms = max(1, int(self._policy.ttl_s * 1000))
        for start in range(0, len(keys), MOST_KEYS):
            some, theirs = keys[start : start + MOST_KEYS], values[start : start + MOST_KEYS]
            self._writes.post(_setting(some, theirs, ttl_ms), _ignored)

    def close(self) -> None:
        """End the threads and their connections; does not wait for them."""
        self._lookups.close()
        self._writes.close()

    def _probe_if_due(self) -> None:
        if self._breaker.takes_probe() and not self._lookups.post(lambda client: client.ping(), self._probed):
            self._breaker.probe_ended(well=False)

    def _probed(self, outcome: Any, took_s: float) -> None:  # noqa: ANN401 - a Redis may answer anything
        if outcome is True and took_s > self._policy.budget_s:
            outcome = TimeoutError(f"an empty answer took {took_s:.3g} s, the budget is {self._policy.budget_s:g} s")
        self._breaker.probe_ended(well=outcome is True)
        self._say(None if outcome is True else outcome)

    def _say(self, problem: Any) -> None:  # noqa: ANN401 - an exception, or whatever was no answer
        if self._noticed is not (problem is None):
            self._noticed = problem is None
            self._notice(None if problem is None else f"{type(problem).__name__}: {problem}")


def _client(policy: RedisPolicy) -> redis.Redis:
    """Connects when first used. Raises ValueError for a URL that is none."""
    return redis.Redis.from_url(
        policy.url,
        username=policy.username,
        password=policy.password,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=SOCKET_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),  # a second try would only be later than the first
        protocol=2,  # every server speaks it, without a greeting
        driver_info=None,  # nor is it told what we are: two questions more before the first answer
        **({"ssl_ca_certs": str(policy.ca_file)} if policy.ca_file else {}),
    )


def _values(answer: object, count: int) -> list[bytes | None]:
    """Raises ValueError for what no MGET answers."""
    if not isinstance(answer, list) or len(answer) != count or not set(map(type, answer)) <= {bytes, NoneType}:
        raise ValueError(f"expected {count} values, found {type(answer).__name__} {str(answer)[:80]}")
    return cast("list[bytes | None]", answer)


def _setting(keys: Sequence[bytes], values: Sequence[bytes], ttl_ms: int) -> Call:
    return lambda client: client.eval(_SET_ALL, len(keys), *keys, ttl_ms, *values)


def _ignored(_outcome: object, _took_s: float) -> None:
    """Of a write: look-ups tell soon enough how Redis is."""
