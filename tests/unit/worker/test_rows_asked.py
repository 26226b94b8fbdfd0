"""Every row that is a version's to answer is counted once for it: answered, failed or a bad output."""

import pytest
from made_pages import canary_page
from small_pipeline import RETRY_S, SICK, SmallPipeline, event, model_of, tenths

from app.answering.asking import FallbackPolicy
from app.errors import ModelFailed
from app.worker.chain import ChainPolicy


def counted(scored):
    """version → (answered, failed, bad outputs, was it asked)."""
    return {
        asked.version: (asked.answered, asked.rows_failed, asked.bad_output, asked.seconds is not None)
        for asked in scored.scored.asked
    }


@pytest.fixture
def rig():
    def never(tensors):
        raise ModelFailed("broken")

    models = [model_of("1", tenths), model_of("2", never)]
    models[1].at_fault = True
    policy = ChainPolicy(fallback=FallbackPolicy(previous=True))
    return SmallPipeline(*models, page=canary_page("1", "2", 100), policy=policy)


def test_rows_with_a_bad_output_are_told_from_those_answered():
    rig = SmallPipeline(model_of("1", tenths))
    scored = rig.score([event(x, offset) for offset, x in enumerate((1.0, SICK, 2.0))])
    assert counted(scored) == {"1": (2, 0, 1, True)}


def test_rows_of_a_version_that_is_left_alone_are_still_its_failures(rig):
    records = [event(1.0, offset) for offset in range(4)]
    assert counted(rig.score(records)) == {"2": (0, 4, 0, True), "1": (4, 0, 0, True)}
    assert counted(rig.score(records)) == {"2": (0, 4, 0, False), "1": (4, 0, 0, True)}
    rig.clock.advance(RETRY_S)
    assert counted(rig.score(records))["2"] == (0, 4, 0, True)
