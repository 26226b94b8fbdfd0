"""The steps of a pipeline, some of whose batches are traced. In the place of `Chain` only where tracing is on."""

import time
from collections import Counter
from dataclasses import replace

from app.answering.asked_facts import ASKED, facts_of
from app.answering.lineup import Lineup
from app.clock import Clock
from app.pipeline.decode import Decoder
from app.ports import BatchTrace, BatchTracing
from app.records import Batch, Origin
from app.worker.chain import Answered, Chain, ChainPolicy, Prepared, ScoredBatch


class TracedChain(Chain):
    """Does what `Chain` does, and tells of each traced batch how its stages went."""

    def __init__(
        self, decoder: Decoder, lineup: Lineup, policy: ChainPolicy, clock: Clock, tracing: BatchTracing
    ) -> None:
        super().__init__(decoder, lineup, policy, clock)
        self._tracing = tracing

    def prepare(self, batch: Batch, origin: Origin) -> Prepared:
        """As `Chain.prepare`; the batch's trace begins here."""
        trace = self._tracing.begin(batch, origin)
        if trace is None:
            return super().prepare(batch, origin)
        with trace.current():
            started = time.perf_counter()
            prepared = super().prepare(batch, origin)
        decoded_s = prepared.decode_seconds
        rejected = sum(len(part.rejected) for part in prepared.parts)
        trace.took("decode", started, decoded_s)
        trace.took("features", started + decoded_s, prepared.seconds - decoded_s, {"inference.rows_rejected": rejected})
        return replace(prepared, trace=trace)

    def answer(self, prepared: Prepared) -> Answered:
        """As `Chain.answer`."""
        trace = prepared.trace
        if trace is None:
            return super().answer(prepared)
        with trace.current():
            started = time.perf_counter()
            answered = super().answer(prepared)
        asked = [one for reply in answered.replies for one in reply.asked]
        trace.took("infer", started, answered.seconds, {"inference.models_asked": len(asked)})
        for one in asked:
            trace.happened(ASKED, facts_of(one))
        return answered

    def finish(self, answered: Answered) -> ScoredBatch:
        """As `Chain.finish`; predictions of traced records carry their trace context."""
        trace = answered.prepared.trace
        if trace is None:
            return super().finish(answered)
        with trace.current():
            started = time.perf_counter()
            scored = super().finish(answered)
        trace.took("encode", started, time.perf_counter() - started)
        _tell_outcomes(trace, scored)
        return replace(scored, predictions=trace.carried(scored.predictions, scored.rows), trace=trace)


def _tell_outcomes(trace: BatchTrace, scored: ScoredBatch) -> None:
    rejected = Counter[tuple[str, str]]()
    for outcomes in scored.outcomes:
        for (at, why), many in outcomes.rejected.items():
            rejected[at.value, why.value] += many
    trace.known(
        {
            "inference.model": scored.outcomes[0].model if scored.outcomes else "",
            "inference.model_versions": sorted({outcomes.version for outcomes in scored.outcomes}),
            "inference.answered_by": sorted({outcomes.answered_by for outcomes in scored.outcomes}),
            "inference.predicted": sum(outcomes.predicted for outcomes in scored.outcomes),
            "inference.skipped": sum(outcomes.skipped for outcomes in scored.outcomes),
            "inference.dead_lettered": rejected.total(),
        }
    )
    for (stage, reason), many in sorted(rejected.items()):
        trace.happened(
            "inference.dead_letters",
            {"inference.stage": stage, "inference.reason": reason, "inference.rows": many},
        )
