"""A call that never returns ends the process, and is told."""

from dataclasses import dataclass
from threading import Event

from app.audit.watching import watch
from app.observe.audit_metrics import AUDIT_TABLE, AuditMetrics


@dataclass
class Call:
    name: str = "consumer.close"
    since_s: float = 9.0


def test_the_first_overdue_call_ends_the_process():
    calls, ended = iter([None, None, Call()]), []
    thread = watch(lambda: next(calls), lambda: ended.append(True), Event(), look_s=0.001)
    thread.join(10)
    assert (ended, thread.is_alive()) == ([True], False)


def test_it_ends_with_the_writer():
    stopped, ended = Event(), []
    stopped.set()
    watch(Call, lambda: ended.append(True), stopped, look_s=0.001).join(10)
    assert ended == []


def test_metrics_have_what_was_written_and_what_waits():
    metrics = AuditMetrics(["churn"])
    metrics.watch(lambda: {"churn": 7})
    metrics.file_written("churn", 100, 4_000)
    metrics.file_written("churn", 50, 2_000)
    page = metrics.exposition().decode()
    shown = {spec.name: f'{spec.name}{{pipeline="churn"}}' for spec in AUDIT_TABLE}
    assert [line.removeprefix(f"{shown[name]} ") for name in shown for line in page.splitlines()
            if line.startswith(shown[name])] == ["2.0", "150.0", "6000.0", "7.0"]  # fmt: skip
