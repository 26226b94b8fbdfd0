"""What people are shown of dead letters: where each was read and why, after it is durable, and no value it had."""

from dataclasses import replace

import pytest
from fakes import FakeRecord
from hypothesis import given
from hypothesis import strategies as st
from made_worker import refused
from small_pipeline import EVENT_HEADER, SmallPipeline, body, model_of, tenths

from app.facts import Committed, ProcessReport, Refused
from app.observe.pipeline_observer import PipelineObserver
from app.observe.worker_metrics import REFUSED_KEPT as SHOWN
from app.observe.worker_metrics import Metrics
from app.pipeline.dead_letter import MAX_MESSAGE_CHARS, without_the_value
from app.worker.chain import REFUSED_KEPT
from app.worker.slot import report_line, report_of

WORDS = st.text(max_size=80)
REFUSED = st.builds(
    Refused, WORDS, st.integers(0, 2**31), st.integers(0, 2**63), *[WORDS] * 5, pipeline=WORDS, at_ms=st.integers(0)
)


def scored(*numbers):
    """Records with these numbers, of which 0 to 10 are allowed, through a small pipeline."""
    records = [
        FakeRecord(EVENT_HEADER + body("e", number), offset=offset, topic="events", partition=3)
        for offset, number in enumerate(numbers)
    ]
    return SmallPipeline(model_of("4", tenths)).score(records)


def test_a_rejected_row_is_told_with_its_place_and_reason_and_without_its_value():
    ((one,),) = (outcomes.refused for outcomes in scored(1.0, 1234.5, 2.0).outcomes)
    assert one == Refused(
        "events", 3, 1, "features", "out_of_range", "BadFeatures", "x is …, allowed 0 to 10", version="4"
    )


def test_of_many_in_a_batch_only_the_last_are_told():
    (outcomes,) = scored(*[11.0] * 50).outcomes
    assert outcomes.dead_lettered == 50
    assert [one.offset for one in outcomes.refused] == list(range(50 - REFUSED_KEPT, 50))


def test_they_are_shown_once_they_are_committed_and_the_last_of_them_are_kept():
    metrics = Metrics()
    observer = PipelineObserver(metrics, "churn")
    batch = scored(*[11.0] * 15)
    observer.batch_scored(batch.scored)
    assert not metrics.refused

    for at_ms in (1_000, 2_000):
        observer.committed(Committed(batch.outcomes, at_ms))
    assert len(metrics.refused) == SHOWN
    assert [(one.pipeline, one.at_ms) for one in metrics.refused] == [("churn", 1_000)] * 5 + [("churn", 2_000)] * 15


@given(st.lists(REFUSED, max_size=4).map(tuple))
def test_they_come_over_a_process_line_as_they_were(several):
    assert report_of(report_line(ProcessReport(None, None, (), several))).refused == several


@pytest.mark.parametrize("broken", [[1], [[1, 2, 3]], "x", [{"topic": "t"}]])
def test_a_line_with_something_else_is_no_report(broken):
    line = report_line(ProcessReport(None, None, (), (refused(),)))
    torn = line[: line.rindex(b"[[")] + repr(broken).replace("'", '"').encode() + b"]\n"
    with pytest.raises((ValueError, TypeError)):
        report_of(torn)


@given(WORDS, WORDS.filter(lambda text: ", allowed " not in text))
def test_a_message_never_quotes_the_value_that_was_refused(value, field):
    shown = without_the_value(f"{field} is {value}, allowed 18 to 120")
    assert shown.endswith(" is …, allowed 18 to 120")
    assert len(shown) <= len(field) + len(" is …, allowed 18 to 120")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("age is 7, allowed 18 to 120", "age is …, allowed 18 to 120"),
        ("x is 1e300, more than the model's input can hold", "x is …, more than the model's input can hold"),
        ("features[3] is 'a, allowed b', expected 0 or 1", "features[3] is …, expected 0 or 1"),
        ("age is missing", "age is missing"),
        ("3 bytes follow the end of the datum", "3 bytes follow the end of the datum"),
    ],
)
def test_what_is_allowed_stays_in_the_message(message, shown):
    assert without_the_value(message) == shown


def test_a_message_has_an_end():
    assert len(without_the_value("y" * 10_000)) == MAX_MESSAGE_CHARS


def test_two_that_say_the_same_are_the_same():
    assert replace(refused(), at_ms=5) == replace(refused(), at_ms=5)
