"""Workers' metrics are read as they are shown, and whatever is no metrics page is named, never guessed."""

import socket
from contextlib import suppress

import pytest
from endpoints import served, trickle
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadSettings
from app.facts import Asked, BatchScored, InUse, Serving
from app.observe.endpoint import MAX_BYTES, Endpoint, Unreadable
from app.observe.pipeline_observer import PipelineObserver
from app.observe.scrape import ScrapedWorkers, samples_of
from app.observe.worker_metrics import Metrics

NAMES = frozenset({"inference_model_rows_total", "inference_model_seconds_bucket", "inference_rollout_revision"})
PAGE = b'inference_model_rows_total{model="churn",version="1",outcome="answered"} 5.0\n'


def page_of_a_worker():
    metrics = Metrics()
    observer = PipelineObserver(metrics, "p")
    observer.serving(Serving("churn", 4, (InUse("1", "digest", "stable"),)))
    asked = (Asked("churn", "1", 0.002, answered=9, rows_failed=2, bad_output=1), Asked("other", "1", 0.1, answered=7))
    observer.batch_scored(BatchScored(12, "age", 0.0, 0.002, asked, (12,)))
    return metrics.exposition()


def test_of_a_workers_page_the_figures_of_one_model_are_read():
    found = {
        (name, *(dict(labels)[label] for label in sorted(dict(labels)))): value
        for name, labels, value in samples_of(page_of_a_worker(), "churn", NAMES)
    }
    rows = {labels[1:]: value for labels, value in found.items() if labels[0] == "inference_model_rows_total"}
    assert rows == {("churn", "answered", "1"): 9.0, ("churn", "failed", "1"): 2.0, ("churn", "bad_output", "1"): 1.0}
    assert found["inference_model_seconds_bucket", "0.0025", "churn", "1"] == 1.0
    assert found["inference_rollout_revision", "churn", "p"] == 4.0


def test_workers_are_asked_and_those_that_do_not_answer_are_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/metrics"
    with served((200, PAGE)) as one, served((500, b"out of memory\n<b>")) as other:
        workers = ScrapedWorkers("churn", NAMES, [f"{one.url}/metrics", other.url, closed, closed])
        look = workers.now()
    assert one.asked == [("GET", "/metrics", {})]
    assert {name: len(samples) for name, samples in look.workers.items()} == {f"{one.url}/metrics": 1}
    assert look.unread[other.url] == "it answers 500: out of memory <b>"
    assert "ConnectError" in look.unread[closed]
    assert workers.since(0.0) == ()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no figures of model 'churn'"),
        (PAGE.replace(b"churn", b"other"), "no figures of model 'churn'"),
        (b"<html><body>Sign in</body></html>", "does not answer with figures"),
        (b"\xff\xfe\x00", "does not answer with figures"),
        (PAGE.replace(b"5.0", b"NaN"), "nan is not a count"),
        (PAGE.replace(b"5.0", b"-1"), "-1 is not a count"),
        (PAGE.replace(b"5.0", b"+Inf"), "inf is not a count"),
        (PAGE.replace(b"5.0", b"five"), "does not answer with figures"),
        (PAGE + b'x{model="churn" 3\n', "does not answer with figures"),
        (b"#" * (MAX_BYTES + 1), "more than 16777216 bytes"),
    ],
)
def test_what_is_no_metrics_page_is_no_measurement(body, said):
    with served((200, body)) as server:
        look = ScrapedWorkers("churn", NAMES, [server.url]).now()
    assert look.workers == {}
    assert said in look.unread[server.url]


def test_a_page_that_does_not_end_is_given_up():
    with served((200, trickle())) as server, pytest.raises(Unreadable, match=r"not done after 0\.2 s"):
        Endpoint(server.url, within_s=0.2).body()


def test_one_that_says_nothing_is_given_up_in_the_same_words():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unreadable, match=r"not done after 0\.2 s"):
        Endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}", within_s=0.2).body()


@pytest.mark.parametrize("status", [204, 301, 404])
def test_only_a_page_counts(status):
    with served((status, b"")) as server:
        assert list(ScrapedWorkers("churn", NAMES, [server.url]).now().unread) == [server.url]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "churn",
        "127.0.0.1:8080",
        "ftp://host/",
        "http://",
        "http://host:0/",
        "http://host:99999/",
        "http://[::1",
        "http://a b/",
    ],
)
def test_an_address_that_cannot_be_asked_is_refused_at_once(url):
    with pytest.raises(BadSettings):
        Endpoint(url)


def test_a_password_is_not_shown():
    endpoint = Endpoint("http://me:p@ss@host:9/metrics")  # pragma: allowlist secret
    assert endpoint.name == "http://***@host:9/metrics"
    with pytest.raises(BadSettings) as refused:
        Endpoint("ftp://me:secret@host/")  # pragma: allowlist secret
    assert "secret" not in str(refused.value)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_page_is_a_crash(page):
    for body in (page, PAGE + page, page + PAGE):
        with suppress(Unreadable):
            samples_of(body, "churn", NAMES)
