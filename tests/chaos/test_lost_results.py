"""Calls whose result the worker never learns, or learns wrongly, or waits for in vain."""

from tests.chaos.flow import now_ms
from tests.integration.worker_process import wait_until

LOST_RESULTS = (
    "after_send_offsets_to_transaction@10=raise:_TIMED_OUT",
    "before_commit_transaction@15=raise:_TIMED_OUT",
    "before_commit_transaction@20=raise:UNKNOWN_MEMBER_ID:txn_requires_abort",
    "before_send_offsets_to_transaction@25=raise:_TRANSPORT:retriable",
    "after_produce_batch@150=raise:_STATE",
    "before_init_transactions@3=raise:_TIMED_OUT:retriable",
)


def test_a_result_that_is_lost_or_refused_costs_a_retry_and_nothing_else(flow):
    stream = flow()

    with stream.worker(failpoints=" ".join(LOST_RESULTS)) as worker:
        wait_until(lambda: len(worker.said("failpoint")) == len(LOST_RESULTS), worker.tail)
        stream.flows()
        stream.judged()
        assert worker.stop() == 0


def test_a_commit_that_took_effect_and_was_not_heard_of_is_not_done_again(flow):
    """Only the broker knows where the group stands then; what the worker remembers is too old."""
    stream = flow()

    with stream.worker(failpoints="after_commit_transaction@5=raise:_TIMED_OUT") as worker:
        worker.wait_until(lambda: worker.said("failpoint"), "its failpoint")
        stream.flows()
        stream.judged()
        assert worker.stop() == 0


def test_a_result_that_is_lost_in_at_least_once(flow):
    stream = flow(mode="at_least_once")

    with stream.worker(failpoints="before_commit@5=raise:_TIMED_OUT after_commit@9=raise:_TRANSPORT") as worker:
        worker.wait_until(lambda: len(worker.said("failpoint")) == 2, "both failpoints")
        stream.flows()
        stream.judged()
        assert worker.stop() == 0


def test_a_call_that_never_returns_is_ended_by_the_watchdog(flow, measured):
    """As send_offsets_to_transaction does after connection resets (librdkafka #5456, #5511)."""
    stream = flow(settings={"delivery": {"transaction_timeout_s": 1.0}})

    with stream.worker(failpoints="before_send_offsets_to_transaction@10=sleep:600") as stuck:
        stuck.wait_until(lambda: stuck.said("failpoint"), "its failpoint")
        stuck_ms = now_ms()
        assert stuck.wait() == 4
        assert stuck.said("client_call_overdue")[0]["call"] == "send_offsets_to_transaction"
    with stream.worker() as worker:
        measured("recovery_s", stream.recovery_s(stuck_ms))
        stream.judged()
        assert worker.stop() == 0
