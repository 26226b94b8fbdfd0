from concurrent.futures import Future

import pytest

from app.errors import ModelMissing
from app.models.manifest import NumberReference
from app.monitor.board import Board
from app.monitor.drift import DriftPolicy
from app.monitor.judged import Judged, Part
from app.monitor.publisher import Publisher, PublishPolicy
from app.monitor.references import ASK_AGAIN_S, References
from app.monitor.stage import JudgedRows, OutcomesTaken, Rejected, SummariesTaken
from app.monitor.summary_reading import summary_of
from app.monitor.windows import WindowPolicy, Windows
from app.observe.monitor_metrics import MonitorMetrics
from app.observe.scrape import samples_of
from app.rollouts.measurements import JUDGED, NAMES
from tests.fakes import ManualClock
from tests.made_summaries import START_MS, framed, number, summary

EDGES = (0.0, 1.0, 2.0)
REFERENCE = NumberReference(mean=1.0, std=0.5, bins=EDGES, counts=(5_000, 5_000))


class Shop:
    """One window stage, a publisher and its metrics."""

    def __init__(self, references=None):
        self.clock, self.metrics = ManualClock(now_ms=START_MS + 200_000), MonitorMetrics()
        self.windows = Windows(WindowPolicy())
        self.asked, self.hangs = 0, False
        self.references = references if references is not None else {"x": REFERENCE}
        policy = PublishPolicy("inference.monitor", 60, DriftPolicy(), {"churn": 0.25})
        self.publisher = Publisher(
            [self.windows], References(self.load, self.clock, self), policy,
            lambda record: framed(record, "MonitorSummary"), Board(self.metrics).show, self.clock,
        )  # fmt: skip

    def submit(self, load, *arguments):
        """The loader's thread: done at once, unless the store hangs."""
        answer = Future()
        if not self.hangs:
            try:
                answer.set_result(load(*arguments))
            except ModelMissing as exc:
                answer.set_exception(exc)
        return answer

    def load(self, model, version):
        self.asked += 1
        if not self.references:
            raise ModelMissing("no such model")
        return self.references

    def add(self, offset, **fields):
        values = fields.pop("values", [0.5, 1.5] * 500)
        record = summary([0.9] * 10, features=[number("x", values, EDGES)], latencies=[0.05] * 10, **fields)
        self.windows.add(0, offset, summary_of(record), START_MS + 10**6)

    def publish(self):
        return self.publisher.publish(self.publisher.look())

    def shown(self, name):
        page = self.metrics.exposition().decode()
        return [line.rpartition(" ")[2] for line in page.splitlines() if line.startswith(name + "{")]


@pytest.fixture
def shop():
    return Shop()


def test_figures_are_sent_when_they_change_and_not_again(shop):
    shop.add(0)
    (sent,) = shop.publish()
    assert (sent.topic, [key for key, _ in sent.records]) == ("inference.monitor", [b"churn/1"])
    assert shop.publish() == []


def test_a_shifted_feature_is_shown_as_drifted_and_a_calm_one_is_not(shop):
    shop.add(0)
    shop.publish()
    assert shop.shown("inference_feature_drifted") == ["0.0"]
    shop.add(1, start_ms=START_MS + 60_000, values=[1.5] * 1_000)
    shop.publish()
    assert shop.shown("inference_feature_drifted") == ["1.0"]
    assert shop.shown("inference_feature_mean_shift") == ["1.0"]


def test_without_a_reference_nothing_is_judged_and_the_store_is_asked_again_later():
    shop = Shop(references={})
    shop.add(0)
    for _ in range(3):
        shop.publish()
    assert (shop.shown("inference_feature_drifted"), shop.asked) == ([], 1)
    shop.references = {"x": REFERENCE}
    shop.clock.advance(ASK_AGAIN_S + 1)
    shop.publish()
    assert (shop.shown("inference_feature_drifted"), shop.asked) == (["0.0"], 2)


def test_while_the_model_store_hangs_figures_are_shown_and_features_are_not_judged(shop):
    shop.hangs = True
    shop.add(0)
    for _ in range(3):
        assert len(shop.publish()) <= 1
    assert (shop.shown("inference_window_predictions"), shop.shown("inference_feature_drifted")) == (["10.0"], [])


def test_what_was_shown_of_partitions_that_went_elsewhere_is_gone(shop):
    shop.add(0)
    shop.publish()
    shop.windows.restore([])
    shop.publish()
    assert shop.shown("inference_window_predictions") == shop.shown("inference_monitor_predictions") == []


def test_series_of_a_version_that_nothing_predicts_with_any_more_are_gone(shop):
    shop.add(0)
    shop.publish()
    assert shop.shown("inference_window_predictions") == ["10.0"]
    shop.clock.advance(10_000)
    shop.publish()
    assert shop.shown("inference_window_predictions") == []
    assert shop.shown("inference_feature_psi") == []


def test_outcomes_of_all_partitions_are_one_accuracy(shop):
    for partition, right in ((0, 9), (1, 6)):
        shop.windows.put_part(0, Part("churn", "churn", "1", partition, START_MS, Judged(10, right)), START_MS)
    shop.publish()
    assert shop.shown("inference_outcomes") == ["20.0"]
    assert "0.75" in shop.shown("inference_accuracy")
    assert shop.shown("inference_outcome_sample_share") == ["0.25"]


def test_rollout_watch_reads_what_was_judged(shop):
    board = Board(shop.metrics)
    for fact in (
        JudgedRows("churn", "churn", "2", right=91, wrong=9),
        OutcomesTaken("churn", "paired", 100),
        Rejected("t", "truncated", "why"),
        SummariesTaken("t", 5, 1),
    ):
        board.tell(fact)
    board.show_lag({("t", 0): 4})
    samples = samples_of(shop.metrics.exposition(), "churn", NAMES)
    judged = {dict(labels)["result"]: value for name, labels, value in samples if name == JUDGED}
    assert judged == {"right": 91.0, "wrong": 9.0}
    assert shop.shown("inference_monitor_summaries_total") == ["1.0", "4.0"]
