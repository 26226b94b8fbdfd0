"""Tracing is there if the settings ask for it, and costs nothing, not even an import, if they do not."""

import os
import subprocess
import sys

import pytest
import structlog
import yaml
from otlp_receiver import http_collector

from app.errors import BadSettings
from app.observe.worker_metrics import Metrics
from app.settings.reading import load_settings
from app.wiring.processes import drain_and_close_s
from app.wiring.tracing import request_tracing, stream_tracing, tracing_of

PIPELINE = {"name": "p", "input_topics": ["in"], "output_topic": "out", "dead_letter_topic": "dead", "model": "m"}

# in a process of its own, since some of it is read where the library is imported
START_BOTH = """
import os, sys
from pathlib import Path
from app.observe.worker_metrics import Metrics
from app.settings.reading import load_settings
from app.wiring.tracing import tracing_of
settings = load_settings(Path(sys.argv[1]))
for protocol in ("http/protobuf", "grpc"):
    wanted = settings.tracing.model_copy(update={"protocol": protocol})
    tracing_of(settings.model_copy(update={"tracing": wanted}), Metrics()).close()
print("put back" if os.environ["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"] == "many" else "gone")
"""
NONSENSE = {  # each ends the library by an error of its own
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "-1",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "10s",
    "OTEL_PYTHON_METER_PROVIDER": "nobody",
}


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


def test_the_headers_of_another_backend_do_not_go_to_our_collector(settings_of, monkeypatch, logs):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-other=1")
    with http_collector() as received:
        tracing = tracing_of(settings_of(enabled=True, endpoint=received.url, headers="x-api-key=ours"), Metrics())
        tracing.tracer.start_span("x").end()
        tracing.close()
    (headers,) = received.headers
    assert headers["x-api-key"] == "ours"
    assert "x-other" not in headers
    assert os.environ["OTEL_EXPORTER_OTLP_HEADERS"] == "x-other=1"


def test_no_name_without_effect_ends_the_start(tmp_path):
    file = tmp_path / "worker.yaml"
    file.write_text(yaml.safe_dump({"pipelines": [PIPELINE], "tracing": {"enabled": True, "close_timeout_s": 0.1}}))
    told = subprocess.run(
        [sys.executable, "-c", START_BOTH, str(file)],
        env={**os.environ, **NONSENSE},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr[-2000:]
    assert told.stdout.splitlines()[-1] == "put back"


@pytest.mark.parametrize(("enabled", "most_s"), [(False, 20.0), (True, 23.0)])
def test_a_process_that_is_traced_is_given_the_time_for_its_last_spans(settings_of, enabled, most_s):
    assert drain_and_close_s(settings_of(enabled=enabled, close_timeout_s=3.0)) == most_s


def test_the_time_for_the_last_spans_is_bounded(settings_of):
    with pytest.raises(BadSettings, match="close_timeout_s"):
        settings_of(enabled=True, close_timeout_s=61)


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
