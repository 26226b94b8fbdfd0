"""On the real broker, with a real worker: a shadow that is worse is sent back by the watcher, and nobody noticed."""

from rig import answers
from test_hot_swap import settings_of, until_serving
from test_shadow_faults import comparisons, shadow_pids, shadowed_lane
from test_watched_rollouts import ENDS_WITHIN_S, ended, until_told, watching
from worker_process import running_worker, wait_until

from app.wiring.stores import model_desk

__all__ = ["shadowed_lane"]  # the fixture

RATE = 500


def test_a_shadow_whose_answers_are_no_numbers_is_sent_back_by_itself(shadowed_lane, tmp_path):
    lane = shadowed_lane
    settings = settings_of(lane, pipeline={"shadow_topic": lane.shadow_topic})
    desk = model_desk(str(lane.store), None)
    with running_worker(settings, tmp_path, module="tests.integration.odd_shadow", ODD_SHADOW="nan") as worker:
        worker.wait_until_assigned()
        started = desk.start_shadow("churn", "3", "to be watched", budget_s=1.0).after
        until_serving(worker, started.revision)
        worker.wait_until(lambda: worker.said("shadow_ready"), "the shadow to be ready")
        produced = 0
        with watching(lane, tmp_path, f"http://127.0.0.1:{worker.port}/metrics") as said:

            def sent_back():
                nonlocal produced
                lane.produce(RATE, rate=RATE)
                produced += RATE
                return ended(lane)

            page = wait_until(sent_back, lambda: f"the shadow to end; last: {said()[-1:]}", ENDS_WITHIN_S)
            lines = until_told(said, page)
        until_serving(worker, page.revision)
        wait_until(lambda: not shadow_pids(worker), "the shadow's process to end with its page")
        worker.wait_for_records(produced)
        assert worker.stop() == 0

    assert (page.stable, page.previous) == ("1", None)
    line = page.history[-1]
    assert line.automatic
    assert line.who.startswith("rollout watch (")
    assert line.why.startswith("errors: ")
    (told,) = [line for line in lines if line["changed"]]
    assert (told["verdict"], told["reason"]) == ("roll_back", line.why)
    assert told["versions"]["3"]["rows"] > 0
    assert {comparison["result"] for _, comparison in comparisons(lane)} == {"failed"}
    assert lane.verified(sample=300).inputs == produced
    assert {answer["model_version"] for _, answer in answers(lane)} == {"1"}
