"""Swaps at any moment: a record has the version that was in force when its batch was prepared, and keeps its place."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from made_pages import canary_page, stable_page
from small_pipeline import SmallPipeline, event, model_of, read

VERSIONS = ("1", "2", "3")
ENOUGH = [str(n).encode() for n in range(40)]


def page_of(kind, first, second, revision):
    if kind == "stable" or first == second:
        return stable_page(first, revision)
    return canary_page(first, second, 50, revision)


class Swaps(RuleBasedStateMachine):
    """Up to three batches are on their way as in the stream: one prepared, one with the model, one being finished."""

    def __init__(self):
        super().__init__()
        self.rig = SmallPipeline(*(model_of(version) for version in VERSIONS), page=stable_page("1"))
        self.page, self.revision = stable_page("1"), 1
        self.next_offset = 0
        self.prepared = deque()
        self.answered = deque()
        self.seen = []
        self.promised = {}

    @rule(kind=st.sampled_from(["stable", "canary"]), first=st.sampled_from(VERSIONS), second=st.sampled_from(VERSIONS))
    def swap(self, kind, first, second):
        self.revision += 1
        self.page = page_of(kind, first, second, self.revision)
        self.rig.use(self.page)

    @rule(count=st.integers(1, 12))
    def prepare(self, count):
        offsets = range(self.next_offset, self.next_offset + count)
        self.next_offset += count
        records = [event(float(offset % 9), offset) for offset in offsets]
        keys = [record.key() for record in records]
        choice = self.page.choose(keys)
        for index, offset in enumerate(offsets):
            arm = self.page.arms[0 if choice is None else choice[index]]
            self.promised[offset] = (arm.version, arm.name, self.revision)
        self.prepared.append(self.rig.prepare(records))

    @rule()
    def answer(self):
        if self.prepared:
            self.answered.append(self.rig.chain.answer(self.prepared.popleft()))

    @rule()
    def finish(self):
        if self.answered:
            scored = self.rig.chain.finish(self.answered.popleft())
            self.seen += read(scored.predictions.values)
            assert sum(outcomes.records for outcomes in scored.outcomes) == scored.scored.rows

    @invariant()
    def every_record_has_one_version_the_promised_one_and_its_place(self):
        assert [answer["source_offset"] for answer in self.seen] == list(range(len(self.seen)))
        for answer in self.seen:
            found = answer["model_version"], answer["answered_by"], answer["rollout_revision"]
            assert found == self.promised[answer["source_offset"]]


TestSwaps = Swaps.TestCase


@given(st.integers(1, 9_900).map(lambda n: n / 100), st.integers(1, 9_900).map(lambda n: n / 100))
def test_a_larger_canary_keeps_the_keys_of_a_smaller_one(one, other):
    small, large = sorted((one, other))
    rig = SmallPipeline(*(model_of(version) for version in VERSIONS), page=canary_page("1", "2", small))
    records = [event(1.0, offset, key=key) for offset, key in enumerate(ENOUGH)]
    before = read(rig.score(records).predictions.values)
    rig.use(canary_page("1", "2", large, revision=2))
    after = read(rig.score(records).predictions.values)
    for first, second in zip(before, after, strict=True):
        assert not (first["answered_by"] == "canary" and second["answered_by"] == "stable")
