"""What a Prometheus server keeps of the workers: of now, of the past, and which of them are down."""

import orjson
import pytest
from endpoints import served
from fakes import NOW_MS, ManualClock

from app.observe.prometheus_server import MOST_POINTS, PrometheusServer

NAMES = frozenset({"inference_model_rows_total", "inference_rollout_revision"})
NOW_S = NOW_MS / 1000


def rows(values, instance="a:8080", job="inference", **labels):
    metric = {"__name__": "inference_model_rows_total", "job": job, "instance": instance, "model": "churn"}
    metric |= {"version": "1", "outcome": "answered"} | labels
    return {"metric": metric, "values": [[NOW_S + at_s, value] for at_s, value in values]}


def up(values, instance, job="inference"):
    return {
        "metric": {"__name__": "up", "job": job, "instance": instance},
        "values": [[NOW_S + at_s, "0"] for at_s in values],
    }


def answers(*series, down=()):
    """As the query API does."""

    def answer(path, form):
        assert path.endswith("/api/v1/query_range")
        result = down if form["query"].startswith("up{") else series
        return 200, orjson.dumps({"status": "success", "data": {"resultType": "matrix", "result": list(result)}})

    return answer


def server_of(state, **rest):
    return PrometheusServer("churn", NAMES, state.url, ManualClock(), **rest)


def test_a_target_is_a_worker_and_its_own_labels_are_the_rest():
    with served(answers(rows([(0, "5")]), rows([(0, "7")], "b:8080", pod="b"))) as state:
        look = server_of(state, match='job="inference"').now()
    own = (("model", "churn"), ("version", "1"), ("outcome", "answered"))
    assert look.workers == {
        "inference/a:8080": [("inference_model_rows_total", own, 5.0)],
        "inference/b:8080 pod=b": [("inference_model_rows_total", own, 7.0)],
    }
    assert look.unread == {}
    assert state.asked[0][2]["query"] == (
        '{__name__=~"inference_model_rows_total|inference_rollout_revision",model="churn",job="inference"}'
    )
    assert state.asked[1][2]["query"] == 'up{job="inference"} == 0'


def test_a_label_of_the_target_that_is_named_like_the_workers_own_is_the_targets():
    with served(answers(rows([(0, "5")], version="image-7", exported_version="2"))) as state:
        look = server_of(state).now()
    ((target, samples),) = look.workers.items()
    assert target == "inference/a:8080 version=image-7"
    assert dict(samples[0][1])["version"] == "2"


def test_targets_of_the_workers_jobs_that_are_down_are_unread():
    down = (up([0], "b:8080"), up([0], "c:9100", job="node"))
    with served(answers(rows([(0, "5")]), down=down)) as state:
        look = server_of(state).now()
    assert look.unread == {"inference/b:8080": "down, says Prometheus"}


def test_the_past_comes_in_the_order_of_time_with_who_was_down_then():
    first, second = rows([(-20, "1"), (-10, "4"), (0, "9")]), rows([(-10, "2")], "b:8080")
    with served(answers(first, second, down=[up([-20, 0], "b:8080")])) as state:
        looks = server_of(state).since(NOW_S - 3000)
    assert [look.at_s - NOW_S for look in looks] == [-20, -10, 0]
    assert [len(look.workers) for look in looks] == [1, 2, 1]
    assert [bool(look.unread) for look in looks] == [True, False, True]
    times = state.asked[0][2]
    assert float(times["end"]) - float(times["start"]) == 3000
    assert float(times["step"]) == 3000 / MOST_POINTS


def test_a_time_to_come_has_no_past():
    with served(answers()) as state:
        assert server_of(state).since(NOW_S + 5) == ()
    assert state.asked == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, b'{"status":"success","data":{"resultType":"matrix","result":[]}}'), "no figures of model 'churn'"),
        ((400, b'{"status":"error","errorType":"bad_data","error":"parse error"}'), "it answers 400: "),
        ((200, b"<html>"), "does not answer with figures"),
        ((200, b"[]"), "does not answer with figures"),
        ((200, b'{"data":{"result":[{"metric":{},"values":[[1]]}]}}'), "does not answer with figures"),
        ((200, b'{"data":{"result":[{"metric":{},"values":[[1,"NaN"]]}]}}'), "does not answer with figures"),
        ((200, b'{"data":{"result":[{"metric":[],"values":[]}]}}'), "does not answer with figures"),
        ((200, b'{"data":{"result":{"a":1}}}'), "does not answer with figures"),
    ],
)
def test_what_is_no_answer_is_no_measurement(answer, said):
    with served(answer) as state:
        server = server_of(state)
        look = server.now()
        assert look.workers == {}
        assert said in look.unread[state.url]
        past = server.since(0.0)
        assert all(look.workers == {} and said in look.unread[state.url] for look in past)
        assert len(past) == (0 if said.startswith("no figures") else 1)


def test_a_path_before_the_api_is_kept():
    with served(answers(rows([(0, "5")]))) as state:
        PrometheusServer("churn", NAMES, f"{state.url}/prometheus/", ManualClock()).now()
    assert state.asked[0][:2] == ("POST", "/prometheus/api/v1/query_range")
