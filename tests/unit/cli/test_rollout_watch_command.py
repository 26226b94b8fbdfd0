"""`models rollout watch` and `guards` as people and programs start them: exit status, lines, and refusals."""

import json
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from app import __main__ as program
from app.models.model_store import open_store
from app.models.rollout import first_rollout
from app.models.rollout_changes import Order, start_canary

NOBODY = "http://127.0.0.1:9/metrics"  # the discard port: nothing listens there


@pytest.fixture
def store(tmp_path):
    for version in ("1", "2"):
        where = tmp_path / "churn" / version
        where.mkdir(parents=True)
        (where / "manifest.json").write_text("{}")
    page = first_rollout("churn", "1", at=datetime.now(UTC), who="test")
    (tmp_path / "churn" / "rollout.json").write_text(page.model_dump_json())
    return open_store(str(tmp_path), tmp_path)


@pytest.fixture
def canary(store):
    order = Order(datetime.now(UTC), "test", "because")
    store.change_rollout("churn", lambda page: start_canary(page, "2", [(5, 0), (100, 0)], order), order)
    return store


def rollout(store, command, *options):
    return CliRunner().invoke(program.cli, ["models", "rollout", command, "churn", "--store", store.url, *options])


def test_where_nothing_is_tried_out_one_look_is_enough(store):
    result = rollout(store, "watch", "--once", "--metrics-url", NOBODY)
    assert result.exit_code == 0
    assert "revision 1: stable 1\n  nothing: stable 1: nothing is being tried out\n" in result.stdout


def test_workers_that_do_not_answer_are_a_reason_to_hold(canary):
    result = rollout(canary, "watch", "--once", "--interval", "0.1", "--json", "--metrics-url", NOBODY)
    assert result.exit_code == 3
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["verdict"] for line in lines] == ["hold", "hold"]
    assert f"no measurements from 1 of 1 workers ({NOBODY}: ConnectError" in lines[1]["reason"]
    assert lines[1]["page"]["candidate"] == "2"
    assert canary.rollout("churn").revision == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--metrics-url", "churn"], "BadSettings: 'churn': expected http://HOST:PORT/"),
        (["--interval", "nan"], "equal to 3600"),
        (["--prometheus", "http://u:secret@"], "BadSettings"),  # pragma: allowlist secret
        (["--metrics-url", NOBODY, "--prometheus", NOBODY], "workers would be counted twice"),
    ],
)
def test_what_cannot_be_asked_is_a_bad_start(monkeypatch, capsys, store, options, said):
    monkeypatch.setattr(sys, "argv", ["x", "models", "rollout", "watch", "churn", "--store", store.url, *options])
    with pytest.raises(SystemExit) as end:
        program.main()
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert said in told
    assert "secret" not in told


def test_a_model_that_does_not_exist_is_a_bad_start(monkeypatch, capsys, store):
    monkeypatch.setattr(sys, "argv", ["x", "models", "rollout", "watch", "nobody", "--store", store.url])
    with pytest.raises(SystemExit) as end:
        program.main()
    assert end.value.code == 2
    assert "ModelMissing: no model 'nobody'" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_well_and_leaves_handlers_as_they_were(canary, number):
    before = signal.getsignal(number)

    def interrupt():
        deadline = time.monotonic() + 10.0
        while signal.getsignal(number) is before:  # ours is not there yet: it would end the tests
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    result = rollout(canary, "watch", "--interval", "3600", "--metrics-url", NOBODY)
    thread.join()
    assert result.exit_code == 0
    assert result.stdout.count("hold: ") == 1
    assert signal.getsignal(number) is before


def test_guards_are_changed_one_by_one_and_shown(canary):
    result = rollout(canary, "guards", "--min-rows", "50", "--alpha", "0.05", "--why", "a small stream")
    assert result.exit_code == 0
    assert "guards: error_rate_increase 0.01, latency_ratio 2, " in result.stdout
    page = canary.rollout("churn")
    assert (page.guards.min_rows, page.guards.alpha, page.guards.latency_ratio) == (50, 0.05, 2.0)
    assert (page.strategy, page.history[-1].why) == ("canary", "a small stream")


@pytest.mark.parametrize(
    ("option", "value"),
    [("alpha", "0"), ("alpha", "1"), ("min-rows", "0"), ("latency-ratio", "nan"), ("disagreement", "2")],
)
def test_guards_that_make_no_sense_are_refused_by_name(monkeypatch, capsys, canary, option, value):
    arguments = ["x", "models", "rollout", "guards", "churn", "--store", canary.url, f"--{option}", value]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        program.main()
    assert end.value.code == 1
    assert f"RolloutRefused: guards.{option.replace('-', '_')}: " in capsys.readouterr().err
    assert canary.rollout("churn").revision == 2
