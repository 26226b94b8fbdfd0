"""`inference-worker models …` over a folder: what people see, and what is refused."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.__main__ import cli
from app.errors import AppError, BadSettings, ModelInvalid, ModelMissing, RolloutConflict, RolloutRefused

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def published(store, make_card, make_graph):
    """Three versions that load."""
    for number in range(3):
        card = make_card(metrics={"accuracy": 0.9 + number / 100})
        store.publish("hand", card, {"model.onnx": make_graph()}, at=NOW, who="a test")
    return store


@pytest.fixture
def models(published):
    """Run a command; its error, if it ends in one, is raised."""

    def run(*command, status=0):
        done = CliRunner().invoke(cli, ["models", *command, "--store", published.url])
        if isinstance(done.exception, AppError):
            raise done.exception
        assert done.exit_code == status, done.output
        return done.stdout

    return run


@pytest.fixture
def models_json(models):
    return lambda *command, status=0: json.loads(models(*command, "--json", status=status))


def test_list_shows_versions_and_what_is_in_force(models, models_json):
    assert models_json("list") == [
        {"model": "hand", "versions": ["1", "2", "3"], "half_written": [], "in_force": "stable 1", "stable": "1",
         "revision": 1}
    ]  # fmt: skip
    assert "1, 2, 3" in models("list")


def test_list_still_works_when_a_rollout_is_broken(models_json, published):
    Path(published.url, "hand", "rollout.json").write_text("{")
    Path(published.url, "hand", "9").mkdir()
    Path(published.url, "hand", "9", "model.onnx").write_bytes(b"")
    (one,) = models_json("list")
    assert (one["in_force"], one["half_written"]) == (None, ["9"])


def test_show_shows_the_stable_version_unless_one_is_named(models, models_json):
    assert models_json("show", "hand")["version"] == "1"
    assert models_json("show", "hand", "3")["metrics"] == {"accuracy": 0.92}
    assert "accuracy" in models("show", "hand")


def test_what_a_manifest_says_is_shown_as_it_is(models, published, make_card, make_graph):
    card = make_card(data="[/bold] [red]", training={"[/x]": "[link=x]"}, metrics={"[b]": 1})
    published.publish("hand", card, {"model.onnx": make_graph()}, at=NOW, who="a test")
    assert "[/bold] [red]" in models("show", "hand", "4")
    assert "[/x]" in models("diff", "hand", "1", "4")


def test_verify_finds_the_version_that_was_tampered_with(models, models_json, published):
    assert [one["verified"] for one in models_json("verify", "hand")] == [True, True, True]
    with Path(published.url, "hand", "2", "model.onnx").open("ab") as graph:
        graph.write(b"\0")
    verdicts = models_json("verify", "hand", status=1)
    assert [one["verified"] for one in verdicts] == [True, False, True]
    assert "model.onnx" in verdicts[1]["detail"]
    assert models("verify", "hand", "3").startswith("hand 3: verified in ")


def test_diff_compares_manifests_metrics_and_golden_answers(models, models_json, published, make_card, make_graph):
    threshold = make_card().outputs[0].model_copy(update={"threshold": 0.2})
    published.publish("hand", make_card(outputs=(threshold,)), {"model.onnx": make_graph()}, at=NOW, who="a test")
    same = models_json("diff", "hand", "1", "2")
    assert same["same_files"]
    assert same["manifest"] == {}
    assert same["metrics"] == [{"name": "accuracy", "a": 0.9, "b": 0.91}]
    assert same["outputs"] == [
        {"name": "probabilities", "rows": 6, "largest": 0.0, "mean": 0.0, "decided_otherwise": 0}
    ]
    other = models_json("diff", "hand", "1", "4")
    assert other["manifest"] == {"outputs[0].threshold": [None, 0.2]}
    assert other["outputs"] is None
    assert "6 golden rows" in models("diff", "hand", "1", "2")
    assert "no row can be put to both" in models("diff", "hand", "1", "4")


def test_promote_says_from_what_to_what_and_writes_history(models, models_json):
    said = models("promote", "hand", "2", "--why", "two weeks as a canary")
    assert "hand: stable 1 → stable 2\nrevision 2, by " in said
    page = models_json("rollout", "show", "hand")
    assert page["history"][-1]["why"] == "two weeks as a canary"
    assert "@" in page["history"][-1]["who"]
    assert "two weeks as a canary" in models("rollout", "show", "hand")


def test_a_version_that_does_not_verify_is_not_promoted_unless_asked_for(models, models_json, published):
    with Path(published.url, "hand", "2", "model.onnx").open("ab") as graph:
        graph.write(b"\0")
    with pytest.raises(ModelInvalid, match=r"model\.onnx"):
        models("promote", "hand", "2")
    assert models_json("rollout", "show", "hand")["revision"] == 1
    assert models_json("promote", "hand", "2", "--no-verify")["after"]["stable"] == "2"


@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        (("promote", "hand", "9"), ModelMissing, "no version '9' in .*; versions there: 1, 2, 3"),
        (("promote", "hand", "latest"), ModelMissing, "no version 'latest'"),
        (("promote", "hand", "../1"), ModelMissing, "no version"),
        (("promote", "none", "1"), ModelMissing, "no model 'none' in .*; models there: hand"),
        (("promote", "hand", "1"), RolloutRefused, "version 1 is stable already"),
        (("promote", "hand"), RolloutRefused, "say which version"),
        (("promote", "hand", "2", "--if-revision", "7"), RolloutConflict, "revision 1 of 'hand' is in force, not 7"),
        (("rollback", "hand"), RolloutRefused, "nothing came before version 1"),
        (("show", "hand", "9"), ModelMissing, "versions there"),
        (("verify", "none"), ModelMissing, "models there: hand"),
        (("diff", "hand", "1", "9"), ModelMissing, "versions there"),
        (("gc", "none"), ModelMissing, "no model 'none'"),
        (("gc", "../hand"), ModelMissing, "no model '../hand'"),
        (("rollout", "show", "none"), ModelMissing, "no model 'none'"),
        (("rollout", "advance", "hand"), RolloutRefused, "there is no canary"),
        (("rollout", "switch", "hand"), RolloutRefused, "there is no standby"),
        (("rollout", "stop", "hand"), RolloutRefused, "nothing runs beside"),
        (("rollout", "resume", "hand"), RolloutRefused, "not held"),
        (("rollout", "start-canary", "hand", "9"), ModelMissing, "no version '9'"),
        (("rollout", "start-canary", "hand", "2", "--steps", "50:1,5:1"), RolloutRefused, "larger percent"),
        (("rollout", "start-shadow", "hand", "2", "--percent", "-5"), RolloutRefused, "percent"),
        (("rollout", "start-shadow", "hand", "2", "--percent", "12.345"), RolloutRefused, "12.345 is no multiple"),
        (("rollout", "start-canary", "hand", "2", "--steps", "0.004:1"), RolloutRefused, "percent"),
        (("rollout", "start-canary", "hand", "2", "--steps", "99.996:1"), RolloutRefused, "99.996 is no multiple"),
        (("rollout", "start-ab", "hand", "--arm", "a=1", "--arm", "b=9"), ModelMissing, "no version '9'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_is_refused_by_name_and_changes_nothing(models, published, command, error, message):
    before = Path(published.url, "hand", "rollout.json").read_bytes()
    with pytest.raises(error, match=message):
        models(*command)
    assert Path(published.url, "hand", "rollout.json").read_bytes() == before


@pytest.mark.parametrize(
    "command",
    [
        ("start-canary", "hand", "2", "--steps", "5"),
        ("start-canary", "hand", "2", "--steps", "five:1"),
        ("start-canary", "hand", "2", "--steps", ""),
        ("start-ab", "hand", "--arm", "a"),
        ("start-ab", "hand", "--arm", "a=1:heavy"),
    ],
    ids=" ".join,
)
def test_options_that_cannot_be_read_are_refused_by_the_command_line(models, command):
    models("rollout", *command, status=2)


def test_a_canary_from_its_start_to_stable(models_json):
    started = models_json("rollout", "start-canary", "hand", "2", "--steps", "5:60,50:60")["after"]
    assert (started["strategy"], started["candidate"], started["held"]) == ("canary", "2", False)
    assert models_json("rollout", "advance", "hand")["after"]["step"] == 1
    assert models_json("rollout", "show", "hand")["held"]
    assert not models_json("rollout", "resume", "hand")["after"]["held"]
    assert models_json("rollout", "hold", "hand")["after"]["held"]
    done = models_json("rollout", "advance", "hand")["after"]
    assert (done["strategy"], done["stable"], done["previous"]) == ("stable", "2", "1")


def test_blue_green_switches_and_rolls_back_in_one_command_each(models_json):
    models_json("rollout", "start-blue-green", "hand", "2")
    switched = models_json("rollout", "switch", "hand")["after"]
    assert (switched["stable"], switched["standby"]) == ("2", "1")
    back = models_json("rollback", "hand")["after"]
    assert (back["strategy"], back["stable"], back["standby"]) == ("blue_green", "1", "2")


def test_ab_and_shadow_start_and_stop(models_json):
    started = models_json("rollout", "start-ab", "hand", "--arm", "plain=1:1", "--arm", "boosted=2:3")["after"]
    assert [(arm["name"], arm["version"], arm["weight"]) for arm in started["variants"]] == [
        ("plain", "1", 1),
        ("boosted", "2", 3),
    ]
    assert models_json("rollout", "stop", "hand")["after"]["strategy"] == "stable"
    assert models_json("rollout", "start-shadow", "hand", "3", "--percent", "10")["after"]["percent"] == 10
    assert models_json("rollback", "hand")["after"]["stable"] == "1"


def test_gc_says_first_and_removes_then(models, models_json, published):
    assert models_json("gc", "--keep", "1", "--dry-run") == [{"model": "hand", "version": "2", "half_written": False}]
    assert "hand 2: would be removed" in models("gc", "hand", "--keep", "1", "--dry-run")
    assert published.versions("hand") == ["1", "2", "3"]
    assert "hand 2: removed" in models("gc", "--keep", "1")
    assert published.versions("hand") == ["1", "3"]
    assert "nothing to remove" in models("gc", "--keep", "1")


def test_gc_removes_what_was_never_finished(models, published):
    Path(published.url, "hand", "4").mkdir()
    Path(published.url, "hand", "4", "model.onnx").write_bytes(b"half")
    assert "nothing to remove" in models("gc")
    os.utime(Path(published.url, "hand", "4", "model.onnx"), (0, 0))
    Path(published.url, "never", "1").mkdir(parents=True)
    Path(published.url, "never", "1", "model.onnx").write_bytes(b"half")
    os.utime(Path(published.url, "never", "1", "model.onnx"), (0, 0))
    assert models("gc") == "hand 4: half-written, removed\nnever 1: half-written, removed\n"


@pytest.mark.parametrize("hours", ["0", "-1", "0.5", "nan"])
def test_gc_leaves_a_publisher_time_to_finish(models, hours):
    models("gc", "--half-written-hours", hours, status=2)


def test_promote_makes_the_first_page_of_a_model_that_has_none(models, models_json, published):
    Path(published.url, "hand", "rollout.json").unlink()
    with pytest.raises(ModelMissing, match="no version '9'"):
        models("promote", "hand", "9")
    with pytest.raises(ModelMissing, match=r"rollout\.json does not exist"):
        models("promote", "hand", "2", "--if-revision", "1")
    assert models("promote", "hand", "2", "--why", "found without one").startswith("hand: no rollout → stable 2\n")
    page = models_json("rollout", "show", "hand")
    assert (page["revision"], page["stable"], page["previous"]) == (1, "2", None)
    assert page["history"][-1]["why"] == "found without one"
    assert models_json("promote", "hand", "3")["before"]["stable"] == "2"


def test_a_store_is_named_in_one_way_only(published, tmp_path):
    done = CliRunner().invoke(cli, ["models", "list", "--store", published.url, "--config", str(tmp_path / "x.yaml")])
    assert isinstance(done.exception, BadSettings)


COMMANDS = [
    *(("models", name) for name in ("list", "show", "verify", "diff", "promote", "rollback", "gc")),
    *(
        ("models", "rollout", name)
        for name in ("show", "start-canary", "start-ab", "start-blue-green", "start-shadow", "advance", "switch",
                     "stop", "hold", "resume")
    ),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example_and_takes_json(command):
    shown = CliRunner().invoke(cli, [*command, "--help"]).stdout
    assert "Example: inference-worker" in shown
    assert "--json" in shown
