"""Tracing is there if the settings ask for it, and costs nothing, not even an import, if they do not."""

import subprocess
import sys

import pytest
import structlog
import yaml

from app.errors import BadSettings
from app.observe.worker_metrics import Metrics
from app.settings.reading import load_settings
from app.wiring.tracing import request_tracing, stream_tracing, tracing_of

PIPELINE = {"name": "p", "input_topics": ["in"], "output_topic": "out", "dead_letter_topic": "dead", "model": "m"}


@pytest.fixture
def settings_of(tmp_path):
    def load(**tracing):
        file = tmp_path / "worker.yaml"
        content = {"pipelines": [PIPELINE], "worker": {"instance_id": "w"}, "tracing": tracing}
        file.write_text(yaml.safe_dump(content))
        return load_settings(file)

    return load


@pytest.fixture
def logs():
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_a_worker_without_tracing_does_not_even_load_the_library():
    code = (
        "import sys, app.wiring.processes; print(*[name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split() == []


def test_switched_off_there_is_nothing(settings_of):
    settings = settings_of()
    assert tracing_of(settings, Metrics()) is None
    about = dict.fromkeys(("pipeline", "group_id", "client_id", "output_topic"), "x")
    assert stream_tracing(None, settings, Metrics(), None, most_bytes=1, **about) is None
    assert request_tracing(None, settings, Metrics(), None) is None


def test_without_the_extra_it_says_which_one_is_missing(settings_of, monkeypatch, logs):
    for name in [name for name in sys.modules if name.startswith(("app.observe.tracing", "opentelemetry.sdk"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(BadSettings, match=r"pip install 'kafka-inference-worker\[tracing\]'"):
        tracing_of(settings_of(enabled=True), Metrics())


def test_the_environment_counts_and_what_has_no_effect_is_said(settings_of, monkeypatch, logs):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    settings = settings_of(enabled=True, close_timeout_s=0.1)
    assert settings.tracing.url() == "http://127.0.0.1:9/v1/traces"
    with structlog.testing.capture_logs() as said:
        tracing_of(settings, Metrics()).close()
    events = {line["event"]: line for line in said}
    assert events["environment_names_without_effect"]["names"] == ["OTEL_TRACES_SAMPLER"]
    assert events["tracing"]["endpoint"] == "http://127.0.0.1:9/v1/traces"


def test_a_header_is_no_more_shown_than_a_password(settings_of, tmp_path):
    with pytest.raises(BadSettings, match=r"tracing\.headers") as refused:
        settings_of(enabled=True, headers="t0p-s3cret")
    assert "s3cret" not in str(refused.value)
    assert "s3cret" not in settings_of(headers="authorization=t0p-s3cret").model_dump_json()


def test_headers_that_are_no_headers_are_a_bad_start(settings_of, tmp_path, logs):
    (tmp_path / "headers").write_text("nonsense")
    with pytest.raises(BadSettings, match="headers_file"):
        tracing_of(settings_of(enabled=True, headers_file="headers"), Metrics())


def test_spans_are_counted():
    metrics = Metrics()
    metrics.spans_ended("dropped", 3)
    metrics.batch_traced("record")
    told = metrics.exposition().decode()
    assert 'inference_spans_total{result="dropped"} 3.0' in told
    assert 'inference_traced_batches_total{why="record"} 1.0' in told
