"""`python -m deploy.kubernetes`: rule files become manifests, and one that is out of date is found."""

import pytest
import yaml

from deploy.kubernetes import __main__ as program

RULES = "groups: [{name: one, rules: [{alert: Up, expr: up == 0}]}]"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    (tmp_path / "prometheus").mkdir()
    (tmp_path / "prometheus/one.rules.yaml").write_text(RULES)
    (tmp_path / "prometheus/one.rules.test.yaml").write_text("rule_files: [one.rules.yaml]")
    monkeypatch.setattr(program, "RULE_FILES", tmp_path / "prometheus")
    return tmp_path / "rules"


def test_each_rule_file_is_a_manifest_and_its_unit_tests_are_not(folders):
    program.write(folders)

    assert {path.name for path in folders.iterdir()} == {"kustomization.yaml", "one.yaml"}
    rule = yaml.safe_load((folders / "one.yaml").read_text())
    assert (rule["kind"], rule["metadata"]["name"]) == ("PrometheusRule", "inference-one")
    assert rule["spec"] == yaml.safe_load(RULES)
    assert yaml.safe_load((folders / "kustomization.yaml").read_text())["resources"] == ["one.yaml"]
    assert program.stale(folders) == []


def test_what_is_missing_changed_or_left_over_is_named_and_mended(folders):
    assert program.stale(folders) == ["kustomization.yaml", "one.yaml"]
    program.write(folders)
    (folders / "one.yaml").write_text("edited by hand")
    (folders / "two.yaml").write_text("of a rule file that is gone")
    assert program.stale(folders) == ["one.yaml", "two.yaml"]

    program.write(folders)
    assert program.stale(folders) == []


@pytest.mark.parametrize(("left_over", "status"), [([], 0), (["one.yaml"], 1)])
def test_the_check_says_what_to_do(left_over, status, monkeypatch, capsys):
    monkeypatch.setattr(program, "stale", lambda: left_over)
    monkeypatch.setattr(program.sys, "argv", ["deploy.kubernetes", "--check"])

    assert program.main() == status
    assert ("run python -m deploy.kubernetes: one.yaml" in capsys.readouterr().err) == bool(left_over)
