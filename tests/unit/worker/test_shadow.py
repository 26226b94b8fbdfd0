"""Whatever a shadow does, the stream hands over or drops without waiting, and each row is counted once."""

import os
import resource
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_pages import shadow_page, stable_page
from shadow_world import ShadowWorld
from small_pipeline import event

from app.worker.shadow_line import Kind


@pytest.fixture
def world():
    made = ShadowWorld()
    yield made
    made.shadow.close()


def test_rows_go_to_the_candidate_with_keys_places_and_stables_answers(world):
    world.begin()
    world.offer(3)
    world.turn()
    (rows,) = world.process.got()
    assert rows.events.column("x").to_pylist() == [0.0, 1.0, 2.0]
    assert rows.keys.to_pylist() == [b"0", b"1", b"2"]
    assert rows.offsets.tolist() == [0, 1, 2]
    assert [source.topic for source in rows.sources] == ["events"]
    assert (rows.version, rows.revision) == ("1", 1)
    assert rows.answer.numbers[:, 1].tolist() == pytest.approx([0.0, 0.1, 0.2])
    assert rows.answer.classes().tolist() == ["0", "0", "0"]
    world.process.compared(agreed=1, disagreed=1, failed=1, seconds=0.2, model_seconds=0.1)
    world.turn()
    assert world.seen.model_seconds == [0.1]
    assert world.seen.rows == {"agreed": 1, "disagreed": 1, "failed": 1}
    assert world.seen.differences == [0.25, 0.25]


def test_only_rows_that_stable_answered_are_compared(world):
    world.begin()
    records = [event(1.0, 0), event(11.0, 1), event(9.0, 2), event(2.0, 3)]  # out of range, and answered with NaN
    world.shadow.offer(world.pipeline.chain.answer(world.pipeline.prepare(records)))
    world.turn()
    (rows,) = world.process.got()
    assert rows.offsets.tolist() == [0, 3]
    assert rows.events.column("x").to_pylist() == [1.0, 2.0]


def test_a_share_of_the_keys_is_the_pages_choice(world):
    world.begin(percent=30)
    answered = world.answered(200)
    keys = [record.key() for record in answered.prepared.batch.records]
    world.shadow.offer(answered)
    world.turn()
    (rows,) = world.process.got()
    answered_keys = [keys[row] for row in answered.replies[0].inference.rows.tolist()]
    mask = world.page.shadowed(answered_keys).tolist()
    assert rows.keys.to_pylist() == [key for key, chosen in zip(answered_keys, mask, strict=True) if chosen]
    assert 0 < len(rows) < 200


def test_nothing_is_offered_without_a_shadow(world):
    world.follow(None)
    world.offer()
    world.turn()
    assert world.processes == []
    assert world.seen.rows == {}


def test_a_batch_of_another_page_is_not_this_shadows(world):
    world.begin()
    world.pipeline.use(stable_page("1", 7))
    world.offer()
    world.turn()
    assert world.process.got() == []
    assert world.seen.rows == {}


def test_until_the_process_is_ready_rows_are_dropped(world):
    world.follow(shadow_page("1", "2"))
    world.offer(4)
    world.turn()
    assert world.seen.rows == {"dropped": 4}
    world.ready()
    world.offer(4)
    world.turn()
    assert len(world.process.got()) == 1


def test_what_does_not_fit_is_dropped_at_once(world):
    world.begin()
    for _ in range(5):
        world.offer(4)
    assert world.seen.rows == {"dropped": 12}
    world.turn()
    assert len(world.process.got()) == 2
    world.process.compared(agreed=4)
    world.turn()
    world.offer(4)
    world.turn()
    assert len(world.process.got()) == 1


def test_a_batch_that_is_too_large_is_dropped():
    world = ShadowWorld(most_bytes=10)
    world.begin()
    world.offer(4)
    world.turn()
    assert world.seen.rows == {"dropped": 4}
    world.shadow.close()


def test_a_line_that_takes_nothing_holds_nobody_up():
    world = ShadowWorld(most_bytes=1 << 30, places=1)
    world.begin()
    world.offer(20_000)  # more than the line's own buffers
    world.turn()
    world.offer(4)
    assert world.seen.rows == {"dropped": 4}
    rows = []
    while not rows:
        rows = world.process.got()
        world.turn(1)
    assert len(rows[0]) == 20_000
    world.shadow.close()


def test_a_time_budget_that_is_used_up_drops_rows_until_it_has_grown_again(world):
    world.begin(budget_s=0.2)
    world.offer()
    world.turn()
    world.process.compared(agreed=4, seconds=0.4)
    world.turn()
    world.offer()
    assert world.seen.rows == {"agreed": 4, "dropped": 4}
    world.clock.advance(0.9)  # 0.2 at the start, less 0.4, plus 0.18
    world.turn()
    world.offer()
    assert world.seen.rows == {"agreed": 4, "dropped": 8}
    world.clock.advance(0.2)
    world.turn()
    world.offer()
    world.turn()
    assert world.seen.rows == {"agreed": 4, "dropped": 8}


def test_a_long_rest_saves_no_more_than_a_second_of_budget(world):
    world.begin(budget_s=0.2)
    world.clock.advance(3600)
    world.turn()
    world.offer()
    world.turn()
    world.process.compared(agreed=4, seconds=0.3)
    world.turn()
    world.offer()
    assert world.seen.rows == {"agreed": 4, "dropped": 4}


def lose_by_death(world):
    world.process.die()
    return "ShadowCrashed"


def lose_by_hanging(world):
    world.clock.advance(10.1)
    return "ShadowHung"


def lose_by_refusal(world):
    world.process.refuse("ModelInvalid")
    return "ModelInvalid"


def lose_by_an_error_nobody_knows(world):
    world.process.refuse("customer-4711")
    return "ShadowFailed"


def lose_by_nonsense(world):
    world.process.say_bytes(b"Segmentation fault\n")
    return "ShadowCrashed"


def lose_by_a_frame_too_long(world):
    world.process.say_bytes(struct.pack("<BI", Kind.COMPARED, 2**31))
    return "ShadowCrashed"


def lose_by_counts_that_do_not_add_up(world):
    world.process.compared(agreed=3)
    return "ShadowCrashed"


def lose_by_rows_sent_to_us(world):
    world.process.say(Kind.ROWS, b"x")
    return "ShadowCrashed"


LOSSES = [
    lose_by_death, lose_by_hanging, lose_by_refusal, lose_by_an_error_nobody_knows, lose_by_nonsense,
    lose_by_a_frame_too_long, lose_by_counts_that_do_not_add_up, lose_by_rows_sent_to_us,
]  # fmt: skip


@pytest.mark.parametrize("lose", LOSSES)
def test_a_process_that_is_lost_fails_what_it_had_by_name_and_another_one_follows(world, lose):
    world.begin()
    world.offer(4)
    world.turn()
    error = lose(world)
    world.turn()
    assert world.seen.errors == [("2", error)]
    assert world.seen.rows == {"failed": 4}
    assert world.processes[0].ended is not None
    world.offer(4)
    world.clock.advance(0.9)
    world.turn()
    assert len(world.processes) == 1
    world.clock.advance(0.2)
    world.turn()
    assert len(world.processes) == 2
    world.ready()
    world.offer(4)
    world.turn()
    world.process.compared(agreed=4)
    world.turn()
    assert world.seen.rows == {"failed": 4, "dropped": 4, "agreed": 4}


def test_after_a_few_starts_it_is_given_up_by_name_until_somebody_decides_something(world):
    world.follow(shadow_page("1", "2"))
    for _ in range(3):
        world.process.die()
        world.turn()
        world.clock.advance(60)
        world.turn()
    assert len(world.processes) == 3
    assert world.seen.errors == [("2", "ShadowCrashed")] * 3 + [("2", "ShadowGivenUp")]
    world.offer(4)
    world.turn()
    assert world.seen.rows == {"dropped": 4}
    world.follow(shadow_page("1", "2", 2))
    assert len(world.processes) == 4


def test_a_start_takes_no_longer_than_its_bound(world):
    world.follow(shadow_page("1", "2"))
    world.clock.advance(60.1)
    world.turn()
    assert world.seen.errors == [("2", "ShadowHung")]


def test_a_worker_with_many_open_files_has_a_shadow_like_any_other():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with ExitStack() as files:
        files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            files.enter_context(Path(os.devnull).open())
        world = ShadowWorld()
        files.callback(world.shadow.close)
        world.begin()
        assert world.process.line.fileno() >= 1024
        world.offer(4)
        world.turn()
        world.process.compared(agreed=4)
        world.turn()
        assert world.seen.rows == {"agreed": 4}


def test_a_process_with_nothing_to_do_may_be_silent(world):
    world.begin()
    world.clock.advance(3600)
    world.turn()
    world.offer()
    world.turn()
    assert world.seen.errors == []


def test_a_system_that_starts_no_processes_is_told_by_name(world):
    world.cannot_start = True
    world.follow(shadow_page("1", "2"))
    assert world.seen.errors == [("2", "ShadowNotStarted")]


def test_another_page_ends_the_process_and_drops_what_it_had(world):
    world.begin()
    world.offer(4)
    world.offer(4)
    world.turn()
    world.process.die()
    world.follow(None)
    assert world.process.ended is not None
    assert world.seen.rows == {"dropped": 8}
    assert world.seen.errors == []


def test_a_new_revision_with_the_same_candidate_keeps_the_process(world):
    world.begin()
    world.follow(shadow_page("1", "2", 2))
    world.offer()
    world.turn()
    assert len(world.processes) == 1
    assert [rows.revision for rows in world.process.got()] == [2]


def test_another_candidate_is_another_process(world):
    world.begin()
    world.follow(shadow_page("1", "3", 2))
    assert [process.page.candidate for process in world.processes] == ["2", "3"]
    assert world.processes[0].ended is not None


def test_comparisons_that_are_not_in_the_topic_are_told_by_name(world):
    world.begin()
    world.offer(4)
    world.turn()
    world.process.compared(agreed=4, unpublished=3)
    world.turn()
    assert world.seen.rows == {"agreed": 4}
    assert world.seen.errors == [("2", "NotPublished")]


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(["offer", "turn", "compare", "die", "hang", "ready", "wait", "page", "stop", "other"]),
        max_size=40,
    )
)
def test_each_row_offered_is_counted_once_whatever_happens(steps):
    world, offered, revision, had = ShadowWorld(), 0, 1, {}
    world.follow(shadow_page("1", "2"))
    for step in steps:
        process = world.processes[-1] if world.processes and world.processes[-1].ended is None else None
        if step == "offer" and world.page is not None:
            answered = world.answered(3)
            offered += len(answered.replies[0].inference.rows)
            world.shadow.offer(answered)
        elif step == "wait":
            world.clock.advance(1.5)
        elif step in {"page", "other", "stop"}:
            revision += 1
            candidate = {"page": "2", "other": "3"}.get(step)
            world.follow(None if candidate is None else shadow_page("1", candidate, revision))
        elif process is not None and process._theirs.fileno() >= 0:
            if step == "compare":
                had.setdefault(id(process), []).extend(process.got())
                if had[id(process)]:
                    process.compared(agreed=len(had[id(process)].pop(0)), seconds=0.1)
            elif step == "die":
                process.die()
            elif step == "ready":
                process.say(Kind.READY)
            elif step == "hang":
                world.clock.advance(11)
        world.turn(1)
    world.shadow.close()
    assert world.total() == offered
