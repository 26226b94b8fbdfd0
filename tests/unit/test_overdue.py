"""A call that never returns ends the process, and is told."""

from dataclasses import dataclass
from threading import Event

from structlog.testing import capture_logs

from app.overdue import end_if_overdue, watch


@dataclass
class Call:
    name: str = "consumer.close"
    since_s: float = 9.04


class Looks:
    """A watchdog that sees these, one with each look."""

    def __init__(self, *seen):
        self._seen = iter(seen)

    def overdue(self):
        return next(self._seen)


def test_nothing_is_said_of_calls_that_return():
    with capture_logs() as logs:
        assert not end_if_overdue(Looks(None), end=None)
    assert logs == []


def test_the_log_says_which_call_ended_the_process():
    ended = []
    with capture_logs() as logs:
        assert end_if_overdue(Looks(Call()), lambda: ended.append(True), pipeline="churn")
    assert ended == [True]
    assert logs == [
        {"event": "client_call_overdue", "log_level": "error", "call": "consumer.close", "since_s": 9.0,
         "pipeline": "churn"}
    ]  # fmt: skip


def test_the_first_overdue_call_ends_the_process():
    ended = []
    thread = watch(Looks(None, None, Call()), Event(), lambda: ended.append(True), look_s=0.001)
    thread.join(10)
    assert (ended, thread.is_alive()) == ([True], False)


def test_the_look_ends_with_the_work():
    stopped, ended = Event(), []
    stopped.set()
    watch(Looks(Call()), stopped, lambda: ended.append(True), look_s=0.001).join(10)
    assert ended == []
