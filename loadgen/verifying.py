"""Reads input, predictions and dead letters to a stable end and judges them."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from loadgen.dead_letter_log import DeadLetterLog
from loadgen.decode import Decoder
from loadgen.errors import BadOption, BrokerFailed
from loadgen.event_sources import pipeline_named
from loadgen.input_log import InputLog, Sampling
from loadgen.latency import Basis, summarize, timeline
from loadgen.ledger import HEALTHY, Ledger, Outcomes
from loadgen.model_store import ModelStore
from loadgen.pipeline import UNKNOWN_TRUTH
from loadgen.poison import REASONS
from loadgen.prediction_log import PredictionLog, wanted_fields
from loadgen.reading import TopicReader
from loadgen.sampled_events import sampled
from loadgen.schema_source import SchemaSource
from loadgen.score_check import ScoreCheck, check_scores
from loadgen.verdict import Accuracy, Verdict
from loadgen.verify_plan import Offsets, VerifyPlan
from loadgen.violations import Place, Violation

Progress = Callable[[int, int, int], None]  # inputs, predictions, dead letters read so far

LOOK_S = 0.05  # how long one look at a topic waits for its first record


class Verification:
    """One verification under way. Close it when done."""

    def __init__(self, plan: VerifyPlan, start: Offsets, *, expected_events: int, basis: Basis, hold: int) -> None:
        """start: where to begin in each topic. expected_events: sets the share that is sampled, nothing else.

        basis: what latency is measured to. hold: predictions kept undecoded at most.
        """
        self._plan = plan
        self._basis = basis
        self._began = time.monotonic()
        self._timed_out = False
        self._store = ModelStore.at(plan.store) if plan.store is not None else None
        self._pipeline = pipeline_named(plan.pipeline, plan.schemas.directory, plan.seed)
        self._schemas = SchemaSource(plan.schemas)
        sampling = Sampling.of(expected_events, plan.sample)
        lanes = {
            (topic, partition): offset for topic in plan.input_topics for partition, offset in start[topic].items()
        }
        self._inputs = InputLog(lanes, sampling)
        self._predictions = PredictionLog(
            plan.prediction_topic,
            Decoder(self._schemas, wanted_fields(plan.pipeline, self._pipeline.id_field)),
            self._inputs.lane_of,
            sampling,
            id_field=self._pipeline.id_field,
            hold=hold,
        )
        self._dead_letters = DeadLetterLog(plan.dead_letter_topic, self._inputs.lane_of)
        self._input_readers = [
            TopicReader(plan.kafka, topic, start[topic], with_headers=True) for topic in plan.input_topics
        ]
        self._prediction_reader = TopicReader(plan.kafka, plan.prediction_topic, start[plan.prediction_topic])
        self._dead_letter_reader = TopicReader(
            plan.kafka, plan.dead_letter_topic, start[plan.dead_letter_topic], with_headers=True
        )

    @property
    def counts(self) -> tuple[int, int, int]:
        """Inputs, predictions and dead letters read so far."""
        return self._inputs.count, self._predictions.count, self._dead_letters.count

    def read_outcomes(self, wait_s: float) -> int:
        """Look once at predictions and dead letters; waits at most that long. Returns how many came."""
        dead_letters = self._dead_letter_reader.read(0.0)
        predictions = self._prediction_reader.read(wait_s)
        self._dead_letters.add(dead_letters)
        self._predictions.add(predictions)
        return len(predictions) + len(dead_letters)

    def outcomes_at_end(self) -> bool:
        """Both output topics had been read to their ends when last looked at."""
        return self._prediction_reader.at_end and self._dead_letter_reader.at_end

    def read_to_stable_end(self, progress: Progress) -> None:
        """Read everything until nothing more comes, or the time is over.

        Raises BrokerFailed if a topic could not be read to its end in that time.
        """
        deadline = time.monotonic() + self._plan.timeout_s
        last_news = time.monotonic()
        finished: bool | None = None  # whether every input has its outcome; unknown after news
        while True:
            came = self.read_outcomes(0.0 if self._inputs.count == 0 else LOOK_S / 10)
            for reader in self._input_readers:
                records = reader.read(0.0 if reader.at_end else LOOK_S)
                self._inputs.add(reader.topic, records)
                came += len(records)
            progress(*self.counts)
            now = time.monotonic()
            if now >= deadline:
                self._timed_out = True
                break
            if came:
                last_news, finished = now, None
                continue
            if not self.outcomes_at_end() or not all(reader.at_end for reader in self._input_readers):
                continue
            if finished is None:
                finished = self._all_finished()
            if now - last_news >= (self._plan.settle_s if finished else self._plan.quiet_s):
                break
            time.sleep(LOOK_S / 5)
        self._require_ends()

    def _all_finished(self) -> bool:
        if self._inputs.count == 0:
            return False
        ledger = Ledger(self._inputs.inputs())
        return ledger.unfinished(self._predictions.outcomes(), self._dead_letters.outcomes()) == 0

    def _require_ends(self) -> None:
        for reader in [*self._input_readers, self._prediction_reader, self._dead_letter_reader]:
            if not reader.at_end and self._nothing_read_from(reader):
                raise BrokerFailed(
                    f"{reader.topic}: nothing could be read within {self._plan.timeout_s:g} s{reader.complaint()}"
                )
        if not all(reader.at_end for reader in self._input_readers):
            raise BrokerFailed(
                f"the input was not read to its end within --timeout {self._plan.timeout_s:g} s: nothing can be said"
            )

    def _nothing_read_from(self, reader: TopicReader) -> bool:
        inputs, predictions, dead_letters = self.counts
        if reader is self._prediction_reader:
            return predictions == 0
        return (dead_letters if reader is self._dead_letter_reader else inputs) == 0

    def verdict(self, measured_from_ms: float = 0.0) -> Verdict:
        """Judge what was read. The latency of events meant to be sent before that time is left out."""
        plan = self._plan
        inputs = self._inputs.inputs()
        ledger = Ledger(inputs)
        predictions, dead_letters = self._predictions.outcomes(), self._dead_letters.outcomes()
        violations = [
            *self._predictions.violations(),
            *self._dead_letters.violations(self._inputs.poisoned),
            *ledger.judge(predictions, dead_letters, at_least_once=plan.at_least_once),
            *ledger.judge_poison(predictions, dead_letters, self._dead_letters.reasons, REASONS, plan.accepted_reasons),
        ]
        score, wrong = self._check_scores()
        violations += wrong
        rows = ledger.rows(predictions)
        ours = rows >= 0
        accuracy, low = self._accuracy(predictions, ours)
        violations += low
        event_time, appended, received = (times[ours] for times in self._predictions.times_ms())
        available = received if self._basis == "received" else appended
        latency = available - event_time
        span_s = (available.max() - available.min()) / 1000.0 if len(available) > 1 else 0.0
        poison = np.bincount(inputs.poison[inputs.poison != HEALTHY], minlength=len(inputs.poison_kinds)).tolist()
        return Verdict(
            pipeline=plan.pipeline,
            delivery="at_least_once" if plan.at_least_once else "exactly_once",
            inputs=len(inputs),
            tombstones=int(inputs.tombstone.sum()),
            poison=dict(zip(inputs.poison_kinds, poison, strict=True)),
            predictions=self._predictions.count,
            dead_letters=self._dead_letters.counted(),
            before_window=int((rows == -2).sum() + (ledger.rows(dead_letters) == -2).sum()),
            violations=tuple(violations),
            answers=tuple(sorted(self._predictions.answers.items(), key=lambda item: (-item[1], item[0].version))),
            latency=summarize(latency[event_time >= measured_from_ms], self._basis),
            timeline=tuple(timeline(available, latency)),
            predictions_per_s=round(len(available) / span_s, 1) if span_s else 0.0,
            accuracy=accuracy,
            score=score,
            timed_out=self._timed_out,
            seconds=round(time.monotonic() - self._began, 3),
        )

    def _check_scores(self) -> tuple[ScoreCheck | None, Sequence[Violation]]:
        if self._store is None:
            return None, ()
        reader = self._schemas.directory.current(self._pipeline.event_schema)
        sample = sampled(self._predictions.samples, self._inputs.kept, self._schemas, reader)
        return check_scores(sample, self._store, self._plan.tolerance)

    def _accuracy(
        self, predictions: Outcomes, ours: "np.typing.NDArray[np.bool_]"
    ) -> tuple[Accuracy | None, Sequence[Violation]]:
        truth = self._pipeline.truth(predictions.ids.cast("string")) if predictions.ids is not None else None
        if truth is None:
            return None, ()
        known = (truth != UNKNOWN_TRUTH) & ours
        accuracy = Accuracy(
            known=int(known.sum()),
            correct=int((truth[known] == self._predictions.classes()[known]).sum()),
        )
        least = self._plan.min_accuracy
        if least is None or (accuracy.known and accuracy.share >= least):
            return accuracy, ()
        detail = f"{accuracy.share:.4f} of {accuracy.known} instead of {least:g} or more"
        place = Place(self._plan.prediction_topic, -1, -1, detail)
        return accuracy, Violation.found("low_accuracy", 1, [place])

    def close(self) -> None:
        """End the readers."""
        for reader in [*self._input_readers, self._prediction_reader, self._dead_letter_reader]:
            reader.close()
        self._schemas.close()


HOLD = 20_000  # records: large enough for the columnar decoder, a few MB


def verify(plan: VerifyPlan, progress: Progress) -> Verdict:
    """Verify all that the topics hold. Raises LoadgenError if they cannot be read."""
    start, end = plan.first_offsets(), plan.end_offsets()
    total = sum(
        end[topic][partition] - offset for topic in plan.input_topics for partition, offset in start[topic].items()
    )
    if total == 0:
        raise BadOption(f"--input: there is nothing in {', '.join(plan.input_topics)}, so nothing to verify")
    verification = Verification(plan, start, expected_events=total, basis="appended", hold=HOLD)
    try:
        verification.read_to_stable_end(progress)
        return verification.verdict()
    finally:
        verification.close()
