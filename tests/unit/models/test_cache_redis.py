"""Redis behind a budget: whatever it does, an answer comes in time, and it is right or none."""

import socket
import threading
import time
from contextlib import contextmanager

import pytest
from fakes import ManualClock

from app.models import redis_cache
from app.models.redis_cache import FAILURES, FIRST_PAUSE_S, LONGEST_PAUSE_S, Breaker, RedisPolicy, RedisStore
from app.models.shared_answers import Unanswered

BUDGET_S = 0.05
LATE_S = 5.0  # so late a thread of a very busy machine may be given its turn; drips would go on for ever


@pytest.fixture
def clock():
    return ManualClock()


@contextmanager
def server(answer):
    """A server on a free port that does `answer(connection, what it was sent)` for whatever it is sent."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        try:
            while sent := connection.recv(65536):
                answer(connection, sent)
        except OSError:
            pass
        finally:
            connection.close()

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@contextmanager
def store(url, clock, budget_s=BUDGET_S):
    """A store whose first probe has ended, and what it gave notice of."""
    notices = []
    heard = threading.Event()

    def notice(problem):
        notices.append(problem)
        heard.set()

    made = RedisStore(RedisPolicy(url, budget_s=budget_s), clock, notice)
    assert heard.wait(30)
    try:
        yield made, notices
    finally:
        made.close()


def until_asked(made, keys, clock):
    """The first answer that was not skipped; pauses pass at once, the machine's do not."""
    deadline = time.monotonic() + 30
    while (answer := made.get(keys)) is Unanswered.SKIPPED:
        assert time.monotonic() < deadline
        clock.advance(LONGEST_PAUSE_S)
        threading.Event().wait(0.01)
    return answer


def alive_but(answer):
    """Answers PING as a Redis does, and everything else with this."""

    def respond(connection, sent):
        if b"PING" in sent:
            connection.sendall(b"+PONG\r\n")
        elif callable(answer):
            answer(connection)
        else:
            connection.sendall(answer)

    return respond


def drip(connection, size=5):
    connection.sendall(b"*2\r\n$%d\r\n" % size)
    while True:
        connection.sendall(b"x")
        threading.Event().wait(0.05)


def say_nothing(_connection):
    pass


def hang_up(connection):
    connection.shutdown(socket.SHUT_RDWR)


GARBAGE = {
    "nothing": say_nothing,
    "drips": drip,
    "hangs up": hang_up,
    "an error": b"-ERR no\r\n",
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "no authentication": b"-NOAUTH Authentication required.\r\n",
    "a number": b":7\r\n",
    "a word": b"+OK\r\n",
    "one value": b"$1\r\na\r\n",
    "no value": b"$-1\r\n",
    "no list": b"*-1\r\n",
    "too few": b"*1\r\n$1\r\na\r\n",
    "too many": b"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
    "numbers": b"*2\r\n:1\r\n:2\r\n",
    "lists": b"*2\r\n*1\r\n:1\r\n*1\r\n:2\r\n",
    "an error among values": b"*2\r\n$1\r\na\r\n-ERR no\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "noise": bytes(range(256)),
    "a length that is no number": b"*x\r\n",
    "a negative length": b"*-7\r\n$-9\r\n",
    "a length without end": b"*2\r\n$99999999999999999999\r\n",
    "a value cut off": b"*2\r\n$10\r\nabc",
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_server_that_answers_nonsense_fails_look_ups_within_the_budget_and_is_left_alone(answer, clock):
    with server(alive_but(answer)) as url, store(url, clock) as (made, notices):
        started = time.monotonic()
        assert until_asked(made, [b"a", b"b"], clock) is Unanswered.FAILED
        assert time.monotonic() - started < BUDGET_S + LATE_S
        assert made.get([b"a", b"b"]) is Unanswered.SKIPPED  # after a probe one failure is enough
        assert notices[-1]


def test_a_server_that_cannot_be_reached_is_never_waited_for(clock):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"redis://127.0.0.1:{taken.getsockname()[1]}/0"
    with store(url, clock) as (made, notices):
        assert made.get([b"a"]) is Unanswered.SKIPPED
        assert "ConnectionError" in notices[0]


def test_a_server_that_accepts_and_says_nothing_is_never_waited_for(clock):
    with server(lambda _connection, _sent: None) as url, store(url, clock) as (made, notices):
        assert made.get([b"a"]) is Unanswered.SKIPPED
        assert "TimeoutError" in notices[0]


def test_a_probe_that_is_answered_too_late_is_no_good_sign(clock, monkeypatch):
    monkeypatch.setattr(redis_cache, "SOCKET_TIMEOUT_S", 30.0)

    def late(connection, _sent):
        threading.Event().wait(2 * BUDGET_S)
        connection.sendall(b"+PONG\r\n")

    with server(late) as url, store(url, clock) as (made, notices):
        assert made.get([b"a"]) is Unanswered.SKIPPED
        assert "the budget is 0.05 s" in notices[0]


def test_answers_are_what_the_server_said(clock, monkeypatch):
    monkeypatch.setattr(redis_cache, "SOCKET_TIMEOUT_S", 30.0)
    with server(alive_but(b"*3\r\n$1\r\na\r\n$-1\r\n$0\r\n\r\n")) as url, store(url, clock, 10.0) as (made, _):
        assert made.get([b"1", b"2", b"3"]) == [b"a", None, b""]


def test_a_late_answer_is_not_taken_for_the_answer_to_the_next_question(clock):
    release = threading.Event()
    asked = []

    def answer(connection):
        asked.append(None)
        if len(asked) == 1:
            release.wait(30)
        connection.sendall(b"*1\r\n$1\r\n%d\r\n" % len(asked))

    with server(alive_but(answer)) as url, store(url, clock) as (made, _):
        assert until_asked(made, [b"one"], clock) is Unanswered.FAILED
        release.set()
        while (found := until_asked(made, [b"two"], clock)) is Unanswered.FAILED:
            pass  # a busy machine
        assert found != [b"1"]


def test_a_connection_on_which_an_answer_drips_is_given_up_for_a_new_one(clock, monkeypatch):
    monkeypatch.setattr(redis_cache, "STUCK_S", 0.2)
    connections = []

    def answer(connection):
        connections.append(connection)
        if len(connections) == 1:
            drip(connection, size=1_000_000)
        connection.sendall(b"*1\r\n$4\r\ngood\r\n")

    with server(alive_but(answer)) as url, store(url, clock) as (made, _):
        assert until_asked(made, [b"a"], clock) is Unanswered.FAILED
        while (found := until_asked(made, [b"a"], clock)) is Unanswered.FAILED:
            pass  # a busy machine
        assert found == [b"good"]
        assert connections[-1] is not connections[0]


def test_writes_that_are_not_taken_hold_nobody_up_and_are_dropped(clock):
    with server(alive_but(say_nothing)) as url, store(url, clock) as (made, _):
        started = time.monotonic()
        for _ in range(200):
            made.put([b"key"], [b"value"])
        assert time.monotonic() - started < LATE_S


def test_a_url_that_is_none_is_refused_at_once(clock):
    with pytest.raises(ValueError, match="scheme"):
        RedisStore(RedisPolicy("http://example.org"), clock, lambda _: None)


@pytest.fixture
def closed(clock):
    """A breaker whose Redis has answered a look-up."""
    breaker = Breaker(clock)
    assert breaker.takes_probe()
    breaker.probe_ended(well=True)
    breaker.succeeded()
    return breaker


def open_again(breaker, clock):
    """Fail, probe well, fail: as a Redis does that answers probes only. Gives back how long the pause was."""
    start = clock.monotonic()
    while not breaker.takes_probe():
        clock.advance(0.01)
    breaker.probe_ended(well=True)
    assert breaker.failed()
    return clock.monotonic() - start


def test_nobody_is_asked_before_a_first_probe(clock):
    breaker = Breaker(clock)
    assert not breaker.closed
    assert breaker.takes_probe()
    assert not breaker.takes_probe()  # one at a time
    breaker.probe_ended(well=True)
    assert breaker.closed


def test_it_opens_after_failures_in_a_row_and_not_before(closed):
    for _ in range(5):
        for _ in range(FAILURES - 1):
            assert not closed.failed()
        closed.succeeded()
    for _ in range(FAILURES - 1):
        assert not closed.failed()
    assert closed.failed()
    assert not closed.closed


def test_a_probe_is_due_after_a_pause_and_closes_it(closed, clock):
    for _ in range(FAILURES):
        closed.failed()
    assert not closed.takes_probe()
    clock.advance(FIRST_PAUSE_S)
    assert closed.takes_probe()
    closed.probe_ended(well=True)
    assert closed.closed


def test_pauses_double_up_to_a_bound_until_a_look_up_succeeds(closed, clock):
    for _ in range(FAILURES):
        closed.failed()
    pauses = [open_again(closed, clock) for _ in range(8)]
    assert pauses == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 8, 8], abs=0.02)
    assert max(pauses) <= LONGEST_PAUSE_S + 0.02
    clock.advance(LONGEST_PAUSE_S)
    assert closed.takes_probe()
    closed.probe_ended(well=True)
    closed.succeeded()
    for _ in range(FAILURES):
        closed.failed()
    clock.advance(FIRST_PAUSE_S)
    assert closed.takes_probe()


def test_a_probe_that_fails_keeps_it_open(closed, clock):
    for _ in range(FAILURES):
        closed.failed()
    clock.advance(FIRST_PAUSE_S)
    assert closed.takes_probe()
    closed.probe_ended(well=False)
    clock.advance(FIRST_PAUSE_S)
    assert not closed.takes_probe()
    clock.advance(FIRST_PAUSE_S)
    assert closed.takes_probe()


def test_what_comes_late_changes_nothing_while_it_is_open(closed):
    for _ in range(FAILURES):
        closed.failed()
    assert not closed.failed()
    closed.succeeded()
    assert not closed.closed
