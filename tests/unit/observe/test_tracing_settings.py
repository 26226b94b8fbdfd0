"""What `tracing:` takes, and what OpenTelemetry's own environment names do to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.errors import BadSettings
from app.observe.tracing_settings import (
    STANDARD_NAMES,
    TracingSettings,
    header_pairs,
    names_without_effect,
    pairs_of,
    with_standard_names,
)

ON = TracingSettings(enabled=True)
SECRET = "Bearer t0p-s3cret"  # pragma: allowlist secret


def test_tracing_is_off_unless_it_is_switched_on():
    assert not TracingSettings().enabled


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://127.0.0.1:4318/v1/traces"),
        ({"endpoint": "http://collector:4318/"}, "http://collector:4318/v1/traces"),
        ({"endpoint": "https://o.example/otlp"}, "https://o.example/otlp/v1/traces"),
        ({"endpoint": "http://c:1/v1/traces"}, "http://c:1/v1/traces"),
        ({"endpoint": "http://[::1]:4318"}, "http://[::1]:4318/v1/traces"),
        ({"protocol": "grpc"}, "http://127.0.0.1:4317"),
        ({"protocol": "grpc", "endpoint": "https://c:4317"}, "https://c:4317"),
    ],
)
def test_spans_go_where_the_standard_says(given, url):
    assert TracingSettings(**given).url() == url


@pytest.mark.parametrize(
    "endpoint",
    ["", "collector:4318", "ftp://c", "http://", "http://u:p@c", "http://c:99999", "http://c:0", "http://c?x=1", "a b"],
)
def test_an_endpoint_that_is_none_is_refused(endpoint):
    with pytest.raises(ValidationError):
        TracingSettings(endpoint=endpoint)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample_ratio", 1.01),
        ("sample_ratio", -0.1),
        ("sample_ratio", float("nan")),
        ("protocol", "http/json"),
        ("queue_spans", 0),
        ("timeout_s", 0),
        ("most_links", 0),
        ("parent_traces_per_s", float("inf")),
        ("headers", "no-pair"),
        ("headers", "a=1\r\nb: 2"),
        ("headers", "bad name=1"),
        ("headers", "a=" + "x" * 9_000),
        ("resource_attributes", "=1"),
    ],
)
def test_what_makes_no_sense_is_refused(field, value):
    with pytest.raises(ValidationError):
        TracingSettings(**{field: value})


def test_headers_are_a_secret_that_may_come_from_a_file(tmp_path):
    file = tmp_path / "headers"
    file.write_text(f"authorization={SECRET.replace(' ', '%20')}\n")
    tracing = TracingSettings(headers_file=file)
    assert tracing.sent_headers() == {"authorization": SECRET}
    assert SECRET not in repr(TracingSettings(headers="authorization=" + SECRET))
    file.write_text("t0p-s3cret")
    with pytest.raises(BadSettings) as refused:
        tracing.sent_headers()
    assert "t0p" not in str(refused.value)


def test_the_standard_names_fill_what_nothing_else_has_set():
    found = with_standard_names(
        ON,
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4318",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces:4318/v1/traces",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-key=1",
            "OTEL_SERVICE_NAME": "churn",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "",
        },
    )
    assert found.url() == "http://traces:4318/v1/traces"
    assert found.sent_headers() == {"x-key": "1"}
    assert (found.service_name, found.resource_attributes) == ("churn", "deployment.environment.name=test")
    assert (found.enabled, found.protocol) == (True, "http/protobuf")


def test_what_is_set_here_wins_over_the_standard_names(tmp_path):
    file = tmp_path / "headers"
    file.write_text("x-key=file")
    own = TracingSettings(enabled=True, endpoint="http://own:1", service_name="own", headers_file=file)
    others = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:1",
        "OTEL_SERVICE_NAME": "o",
        "OTEL_EXPORTER_OTLP_HEADERS": "a=1",
    }
    found = with_standard_names(own, others)
    assert (found.url(), found.service_name) == ("http://own:1/v1/traces", "own")
    assert found.sent_headers() == {"x-key": "file"}


def test_a_service_may_be_named_among_the_attributes():
    attributes = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=churn,a=1"}
    assert with_standard_names(ON, attributes).service_name == "churn"
    assert with_standard_names(ON, attributes | {"OTEL_SERVICE_NAME": "other"}).service_name == "other"
    own = TracingSettings(enabled=True, service_name="own")
    assert with_standard_names(own, attributes).service_name == "own"


def test_while_tracing_is_off_the_standard_names_are_not_even_read():
    off = TracingSettings()
    nonsense = dict.fromkeys(STANDARD_NAMES, "=nonsense=")
    assert with_standard_names(off, nonsense) == off


def test_the_standard_switch_switches_off():
    assert not with_standard_names(ON, {"OTEL_SDK_DISABLED": "True"}).enabled
    assert with_standard_names(ON, {"OTEL_SDK_DISABLED": "false"}).enabled


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/elsewhere"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "t0p-s3cret"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file.pem"),
        ("OTEL_RESOURCE_ATTRIBUTES", "nonsense"),
        ("OTEL_SERVICE_NAME", "two words"),
    ],
)
def test_a_bad_standard_name_is_named_and_no_secret_shown(name, value):
    with pytest.raises(BadSettings, match=name) as refused:
        with_standard_names(ON, {name: value})
    assert "t0p" not in str(refused.value)


def test_with_grpc_the_endpoint_for_traces_has_no_path():
    names = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert with_standard_names(ON, names).url() == "http://c:4317"


def test_names_without_effect_are_found():
    environment = {
        "OTEL_TRACES_SAMPLER": "always_on",
        "OTEL_SERVICE_NAME": "x",
        "OTEL_SDK_DISABLED": "false",
        "PATH": "",
    }
    assert names_without_effect(environment) == ["OTEL_TRACES_SAMPLER"]


@given(st.text(max_size=300))
def test_no_text_is_more_than_pairs_or_refused(text):
    for read in (header_pairs, lambda text: pairs_of("x", text)):
        try:
            found = read(text)
        except ValueError:
            continue
        assert all(name for name in found)


@given(st.sampled_from(sorted(STANDARD_NAMES)), st.text(st.characters(exclude_characters="\0"), max_size=100))
def test_no_environment_is_more_than_settings_or_a_named_refusal(name, value):
    try:
        found, refusal = with_standard_names(ON, {name: value}), name
    except BadSettings as exc:
        found, refusal = ON, str(exc)
    assert found.enabled
    assert name in refusal
