"""Every object that deploy/kubernetes/ makes is one that Kubernetes, KEDA and the Prometheus operator know."""

import functools
import re
from itertools import groupby

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_manifests import FOLDER, OVERLAYS, name_of, of_kind, overlay, with_component

from deploy.kubernetes.__main__ import stale
from deploy.local.artifacts import operator_files

VERSIONS = [f"1.{minor}" for minor in range(30, 38)]
NEWEST = VERSIONS[-1]
SCHEMA_CONTENTS = functools.lru_cache(20)(kubernetes_validate.utils.schema_contents)
COMPONENTS = ["model-store-volume", "redis-cache", "tracing"]
OPERATORS = ("keda.sh", "monitoring.coreos.com")
CRON_JOB = yaml.safe_load((FOLDER / "score-cronjob.yaml").read_text())


@pytest.fixture(autouse=True)
def _each_schema_is_read_once(monkeypatch):
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", SCHEMA_CONTENTS)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Each object once, however many overlays have it."""
    objects = [CRON_JOB]
    for name in OVERLAYS:
        objects += overlay(name)
    for name in COMPONENTS:
        objects += with_component(name, "rolling", tmp_path_factory.mktemp(name) / "overlay")
    ordered = sorted(objects, key=repr)
    return [item for item, _ in groupby(ordered)]


def of_an_operator(item):
    return item["apiVersion"].split("/")[0] in OPERATORS


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_object_and_every_field_of_it(everything, version):
    ours = [item for item in everything if not of_an_operator(item)]
    assert len(ours) > 40
    for item in ours:
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{name_of(item)}: {error.message} at {list(error.path)}")


def test_the_validator_is_strict():
    wrong = {**CRON_JOB, "spec": {**CRON_JOB["spec"], "schedul": "0 0 * * *"}}
    with pytest.raises(kubernetes_validate.ValidationError, match="schedul"):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_the_operators_know_every_object_and_every_field_of_theirs(everything):
    theirs = [item for item in everything if of_an_operator(item)]
    assert {item["kind"] for item in theirs} == {
        "PodMonitor",
        "PrometheusRule",
        "ScaledObject",
        "TriggerAuthentication",
    }
    schemas = operator_schemas()
    for item in theirs:
        found = list(jsonschema.Draft202012Validator(schemas[item["apiVersion"], item["kind"]]).iter_errors(item))
        assert not found, (name_of(item), [(list(error.path), error.message) for error in found])


def test_a_field_that_an_operator_does_not_know_is_found():
    schema = operator_schemas()["keda.sh/v1alpha1", "ScaledObject"]
    (scaled,) = of_kind(overlay("keda"), "ScaledObject")
    wrong = {**scaled, "spec": {**scaled["spec"], "coolDownPeriod": 300}}
    with pytest.raises(jsonschema.ValidationError, match="coolDownPeriod"):
        jsonschema.validate(wrong, schema, cls=jsonschema.Draft202012Validator)


def test_keda_s_scalers_know_every_name_in_a_trigger_and_have_all_that_they_need():
    (scaled,) = of_kind(overlay("keda"), "ScaledObject")
    (access,) = of_kind(overlay("keda"), "TriggerAuthentication")
    for trigger in scaled["spec"]["triggers"]:
        known = scaler_parameters(trigger["type"])
        given = trigger["metadata"]
        secret = (
            {item["parameter"] for item in access["spec"]["secretTargetRef"]}
            if "authenticationRef" in trigger
            else set()
        )
        assert given.keys() <= {name for name, about in known.items() if "triggerMetadata" in about["order"]}
        assert secret <= {name for name, about in known.items() if "authParams" in about["order"]}
        assert {name for name, about in known.items() if about["needed"]} <= given.keys() | secret
        for name, value in given.items():
            assert isinstance(value, str), name  # the definition says so: numbers and booleans too
            assert value in (known[name]["allowed"] or [value])


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_two_objects_have_one_name_and_all_are_in_our_namespace(name):
    objects = overlay(name)
    names = [name_of(item) for item in objects]
    assert len(names) == len(set(names))
    assert {item["metadata"].get("namespace") for item in objects if item["kind"] != "Namespace"} == {"inference"}


def test_the_rules_for_the_operator_are_those_that_promtool_tests():
    assert stale() == []


def operator_schemas():
    """(apiVersion, kind) -> JSON schema that takes no field it does not name, as the API server is with kubectl."""
    found = {}
    for file in operator_files().glob("*.yaml"):
        spec = yaml.safe_load(file.read_text())["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {
                "type": "object",
                "properties": {name: {} for name in ("name", "namespace", "labels", "annotations")},
                "additionalProperties": False,
            }
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def strict(schema):
    """The same with `additionalProperties: false` wherever properties are named."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        made.setdefault("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields", False)))
    return made


def scaler_parameters(kind):
    """Name -> where it may stand, whether it is needed, what is allowed; from the tags in the scaler's source."""
    source = (operator_files() / f"{kind}_scaler.go").read_text()
    found = {}
    for tag in re.findall(r'`keda:"(name=[^"]+)"`', source):
        parts = [part.strip() for part in tag.split(",")]
        options = dict(part.split("=", 1) for part in parts if "=" in part)
        found[options["name"]] = {
            "order": re.split(r"[;]", options["order"]),
            "needed": "optional" not in parts and "default" not in options,
            "allowed": options.get("enum", "").split(";") if "enum" in options else None,
        }
    return found
