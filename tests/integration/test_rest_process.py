"""`inference-worker serve` as operators run it: started by a settings file, asked from outside, stopped by a signal."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from made_pages import canary_page, put, stable_page
from worker_process import ROOT, clean_environment, wait_until

WAIT_S = 60.0
FEATURES = {"age": 34, "income": 50_000, "tenure_months": 12, "monthly_charges": 70.5, "plan": "basic"}


class Server:
    """One `python -m app serve`."""

    def __init__(self, store, folder, serving=None, **environment):
        settings = {
            "schemas": {"directory": str(ROOT / "schemas")},
            "pipelines": [
                {"name": name, "input_topics": [f"{name}.a"], "output_topic": f"{name}.b",
                 "dead_letter_topic": f"{name}.c", "model": name}
                for name in ("churn", "digits")
            ],
            "models": {"store": f"file://{store}", "rollout_poll_s": 0.2},
            "serving": {"port": 0, "access": {"admin_keys": "boss"}} | (serving or {}),
            "log": {"format": "json"},
        }  # fmt: skip
        config = folder / "serve.yaml"
        config.write_text(yaml.safe_dump(settings))
        self._log = folder / "serve.log"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve", "--config", config],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT,
                env=clean_environment(**environment),
            )  # fmt: skip

    @property
    def log(self):
        return self._log.read_text(errors="replace")

    @property
    def port(self):
        def said():
            assert self.process.poll() is None, self.log
            lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
            return [line["http_port"] for line in lines if line["event"] == "started"]

        return wait_until(said, "the server to start")[0]

    def ask(self, path, page=None, **headers):
        """(status, page)."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", None if page is None else json.dumps(page).encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                body, status = answer.read(), answer.status
        except urllib.error.HTTPError as refusal:
            with refusal:
                body, status = refusal.read(), refusal.code
        with contextlib.suppress(ValueError):
            return status, json.loads(body)
        return status, body.decode()

    def wait_until_ready(self):
        wait_until(lambda: self.ask("/readyz")[0] == 200, "the server to be ready")
        return self


@contextlib.contextmanager
def serving(store, folder, **more):
    server = Server(store, folder, **more)
    try:
        yield server
    except BaseException as exc:
        exc.add_note(server.log[-4000:])
        raise
    finally:
        server.process.kill()
        server.process.wait(WAIT_S)


def test_every_golden_row_is_answered_as_its_manifest_says_by_position_and_over_every_protocol(models, tmp_path):
    with serving(models, tmp_path) as server:
        server.wait_until_ready()
        golden = json.loads((Path(models) / "digits/1/manifest.json").read_text())["golden"]
        (rows,), (expected,) = golden["inputs"].values(), golden["outputs"].values()
        tensor = {"name": "features", "shape": [len(rows), 64], "datatype": "FP32", "data": rows}
        _, v2 = server.ask("/v2/models/digits/infer", {"inputs": [tensor]})
        found = next(output for output in v2["outputs"] if output["name"] == "probabilities")["data"]
        assert found == pytest.approx([number for row in expected for number in row], abs=1e-5)
        _, v1 = server.ask("/v1/models/digits:predict", {"instances": rows})
        assert [row["probabilities"] for row in v1["predictions"]] == [pytest.approx(row, abs=1e-5) for row in expected]

        status, page = server.ask("/predict", {"features": FEATURES})
        vector = [34, 50_000, 12, 70.5, None, 0]
        assert status == 200
        assert server.ask("/predict", {"features": vector})[1]["probabilities"] == page["probabilities"]
        refused, why = server.ask("/predict", {"features": FEATURES | {"age": 7, "plan": "gold"}})
        assert (refused, why["detail"]) == (422, "age is 7, allowed 18 to 120")
        metrics = server.ask("/metrics")[1]
        assert 'inference_requests_total{code="200",method="/predict",surface="rest"} 2.0' in metrics
        assert 'inference_records_total{outcome="predicted",pipeline="churn"} 2.0' in metrics

        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(WAIT_S) == 0
        assert "Traceback" not in server.log


def another_version(folder, version):
    """The first one again, under another number."""
    shutil.copytree(folder / "1", folder / version)
    manifest = json.loads((folder / version / "manifest.json").read_text()) | {"version": version}
    (folder / version / "manifest.json").write_text(json.dumps(manifest))


def test_a_new_version_answers_at_once_when_told_and_a_bad_one_never(models, tmp_path):
    store = Path(shutil.copytree(models, tmp_path / "store"))
    for version in ("2", "3"):
        another_version(store / "churn", version)
    put(store, stable_page("1"))
    with serving(store, tmp_path) as server:
        server.wait_until_ready()
        assert server.ask("/predict", {"features": FEATURES})[1]["model_version"] == "1"
        put(store, canary_page("1", "2", 50, 2))
        assert server.ask("/model/reload", {}, **{"X-API-Key": "boss"})[0] == 200
        instances = [{"features": FEATURES, "key": str(number)} for number in range(50)]
        _, page = server.ask("/predict/batch", {"instances": instances})
        assert {row["answered_by"] for row in page["predictions"]} == {"stable", "canary"}
        (store / "churn/3/model.onnx").write_bytes(b"no model")
        put(store, stable_page("3", 3))
        status, why = server.ask("/model/reload", {}, **{"X-API-Key": "boss"})
        assert (status, "has the digest" in why["detail"]) == (409, True)
        assert server.ask("/predict", {"features": FEATURES})[1]["rollout_revision"] == 2


def test_without_a_model_it_lives_and_refuses_until_there_is_one(models, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    with serving(store, tmp_path) as server:
        assert server.ask("/livez")[0] == 200
        assert server.ask("/health")[0] == server.ask("/predict", {"features": FEATURES})[0] == 503
        for model in ("churn", "digits"):
            shutil.copytree(models / model, store / model)
        server.wait_until_ready()
        assert server.ask("/predict", {"features": FEATURES})[0] == 200


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"pipeline": "nope"}, "serving.pipeline: there is no pipeline 'nope', there are churn, digits"),
        ({"access": {"jwt_key": "no PEM"}}, "serving.access.jwt_key: this is no RSA key"),
        ({"host": "203.0.113.1"}, "serving: cannot listen on 203.0.113.1"),
    ],
)
def test_what_is_set_wrong_is_told_at_start_with_status_2(models, tmp_path, section, said):
    with serving(models, tmp_path, serving=section) as server:
        assert server.process.wait(WAIT_S) == 2
        assert said in " ".join(server.log.split())
        assert "Traceback" not in server.log


def test_a_server_that_leaves_says_so_and_answers_until_everybody_has_heard(models, tmp_path):
    with serving(models, tmp_path, serving={"drain_delay_s": 2.0}) as server:
        server.wait_until_ready()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.ask("/readyz")[0] == 503, "the server to say that it leaves")
        assert server.ask("/livez")[0] == 200
        assert server.ask("/predict", {"features": FEATURES})[0] == 200
        assert server.process.wait(WAIT_S) == 0
