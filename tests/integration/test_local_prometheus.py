"""The Prometheus of the local stack, for real: it scrapes itself, answers, forgets nothing, and is ended."""

import time

import pytest
import yaml

from deploy.local.errors import QueryRefused, StartFailed
from deploy.local.prometheus_server import PrometheusServer

RULES = {"groups": [{"name": "ours", "rules": [{"record": "ours:up", "expr": "up * 7"}]}]}
CONFIGURATION = {
    "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"},
    "rule_files": ["ours.rules.yaml"],
    "scrape_configs": [{"job_name": "itself", "file_sd_configs": [{"files": ["targets.json"]}]}],
}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """One that scrapes itself five times a second, by a list of targets beside its configuration."""
    directory = tmp_path_factory.mktemp("prometheus")
    (directory / "ours.rules.yaml").write_text(yaml.safe_dump(RULES))
    configuration = directory / "prometheus.yml"
    configuration.write_text(yaml.safe_dump(CONFIGURATION))
    server = PrometheusServer(directory / "server", configuration)
    with server:
        (directory / "targets.json").write_text(f'[{{"targets": ["{server.url.removeprefix("http://")}"]}}]')
        server.reload()  # what it is told of files that appear later depends on the system
        _wait_for(lambda: server.query("ours:up == 7"))
        yield server
    assert not server.is_running


@pytest.fixture
def configured(tmp_path):
    """Write a configuration's text."""

    def write(text):
        path = tmp_path / "prometheus.yml"
        path.write_text(text)
        return path

    return write


def test_it_scrapes_what_it_is_told_and_evaluates_rules_and_questions(prometheus):
    def scraped():
        """A look at itself that took too long is made good by one of the next."""
        ups = [(sample.labels["__name__"], sample.value) for sample in prometheus.query('up{job="itself"}')]
        sevens = [sample.value for sample in prometheus.query("ours:up")]
        targets = [(target.job, target.health, target.error) for target in prometheus.targets()]
        return (ups, sevens, targets) == ([("up", 1.0)], [7.0], [("itself", "up", "")])

    _wait_for(scraped)
    (scalar,) = prometheus.query("1 + 1")

    assert (scalar.value, scalar.labels) == (2.0, {})
    assert [(rule["name"], rule["health"]) for rule in prometheus.rules()] == [("ours:up", "ok")]
    assert prometheus.query("nobody_exports_this") == []


def test_it_says_what_was_when(prometheus):
    now = round(time.time(), 3)  # Prometheus counts milliseconds

    (series,) = prometheus.query_range("up >= bool 0", start_s=now - 1, end_s=now, step_s=0.25)  # 1 where it looked

    assert {sample.value for sample in series} == {1.0}
    assert all(now - 1 <= sample.at_s <= now for sample in series)
    assert prometheus.query("up", at_s=now - 3600) == []


def test_address_and_series_outlive_a_crash(prometheus):
    url, before = prometheus.url, time.time()

    prometheus.kill()
    prometheus.start()

    assert prometheus.url == url
    assert prometheus.query("up >= bool 0", at_s=before)[0].value == 1.0


def test_a_question_that_is_wrong_is_refused_with_the_reason(prometheus):
    with pytest.raises(QueryRefused, match="parse error"):
        prometheus.query("sum(")
    with pytest.raises(QueryRefused, match="query_range"):
        prometheus.query("up[1m]")


def test_nobody_answers_for_one_that_does_not_run(tmp_path, configured):
    never_started = PrometheusServer(tmp_path / "prometheus", configured(""))

    with pytest.raises(StartFailed, match="never been started"):
        never_started.query("up")


@pytest.mark.parametrize("content", ["scrape_configs: 7", "no: such key", "\x00", "global: {scrape_interval: never}"])
def test_a_configuration_that_is_wrong_is_named_and_nothing_is_left_running(tmp_path, configured, content):
    server = PrometheusServer(tmp_path / "prometheus", configured(content))

    with pytest.raises(StartFailed, match=r"(?s)ended before it was ready.*prometheus\.yml"):
        server.start()

    assert not server.is_running
    with pytest.raises(QueryRefused):
        server.query("up")


def _wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
