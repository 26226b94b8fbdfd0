"""What deploy/kubernetes/ would make in a cluster, as plain data: rendered by Kustomize itself, then read."""

import functools
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

from app.settings.reading import environment_names, load_settings
from app.settings.root import ALIASES
from deploy.local.artifacts import kustomize

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
PAGE = (ROOT / "docs/KUBERNETES.md").read_text()
OVERLAYS = ["rolling", "deployment", "hpa-only", "keda", "blue-green"]
WORKLOADS = ("StatefulSet", "Deployment")
SETTINGS_PATH = "/etc/inference/settings.yaml"


@functools.cache
def rendered(folder):
    """Every object of a kustomization."""
    done = subprocess.run([kustomize(), "build", str(folder)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return tuple(yaml.safe_load_all(done.stdout))


def overlay(name):
    """Every object of an overlay."""
    return rendered(FOLDER / "overlays" / name)


def with_component(name, overlay_name, folder):
    """Every object of an overlay with a component; `folder` is where the kustomization that says so is written."""
    folder.mkdir()
    content = {
        "resources": [os.path.relpath(FOLDER / "overlays" / overlay_name, folder)],
        "components": [os.path.relpath(FOLDER / "components" / name, folder)],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return rendered(folder)


def of_kind(objects, *kinds):
    """Those of these kinds."""
    return [item for item in objects if item["kind"] in kinds]


def name_of(item):
    """Kind and name."""
    return f"{item['kind']}/{item['metadata']['name']}"


@dataclass(frozen=True)
class Workload:
    """What makes pods, with its one container."""

    item: dict

    @property
    def name(self):
        return self.item["metadata"]["name"]

    @property
    def component(self):
        return self.labels["app.kubernetes.io/component"]

    @property
    def labels(self):
        """Of its pods."""
        return self.item["spec"]["template"]["metadata"]["labels"]

    @property
    def pod(self):
        return self.item["spec"]["template"]["spec"]

    @property
    def container(self):
        (container,) = self.pod["containers"]
        return container

    @property
    def ports(self):
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}

    @property
    def pod_name(self):
        """Of its first one, or one that it might have."""
        return f"{self.name}-0" if self.item["kind"] == "StatefulSet" else f"{self.name}-6b5f9c7d8-x2x9z"

    def mounted(self, path):
        """(volume, the path within it) of what is at a path in the container."""
        for mount in self.container["volumeMounts"]:
            if Path(path).is_relative_to(mount["mountPath"]):
                (volume,) = (volume for volume in self.pod["volumes"] if volume["name"] == mount["name"])
                return volume, str(Path(path).relative_to(mount["mountPath"]))
        raise AssertionError(f"{self.name}: nothing is mounted at {path}")

    def environment(self, secrets=None):
        """As the container has it; what is in a secret, or mounted from one, is in the folder `secrets`."""
        found = {}
        for variable in self.container["env"]:
            value = variable.get("value")
            source = variable.get("valueFrom", {})
            if "fieldRef" in source:
                assert source["fieldRef"]["fieldPath"] == "metadata.name"
                value = self.pod_name
            elif "secretKeyRef" in source:
                value = (secrets / source["secretKeyRef"]["name"] / source["secretKeyRef"]["key"]).read_text()
            elif value.startswith("/run/secrets/"):
                volume, key = self.mounted(value)
                value = str(secrets / volume["secret"]["secretName"] / key)
            found[variable["name"]] = value
        return found

    def settings(self, objects, secrets, monkeypatch):
        """What the program in the container would be told, by the product's own loader."""
        for name in [*environment_names(), *ALIASES]:
            monkeypatch.delenv(name, raising=False)
        for name, value in self.environment(secrets).items():
            monkeypatch.setenv(name, value)
        volume, key = self.mounted(SETTINGS_PATH)
        (config_map,) = (
            item for item in of_kind(objects, "ConfigMap") if item["metadata"]["name"] == volume["configMap"]["name"]
        )
        return load_settings(Path(SETTINGS_PATH), config_map["data"][key])


def workloads(objects):
    """All of them."""
    return [Workload(item) for item in of_kind(objects, *WORKLOADS)]


def selects(selector, labels):
    """Whether a label selector takes what has these labels. An empty one takes everything."""
    wanted = selector.get("matchLabels", {})
    if not wanted.keys() <= labels.keys() or any(labels[name] != value for name, value in wanted.items()):
        return False
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "In"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


def secrets_of_the_page():
    """Secret -> its keys, as docs/KUBERNETES.md tells operators to make them."""
    rows = re.findall(r"^\| `(inference-[a-z-]+)` \| ([^|]+) \|", PAGE, flags=re.MULTILINE)
    return {name: set(re.findall(r"`([a-z.-]+)`", keys)) for name, keys in rows}


def make_secrets(folder):
    """What docs/KUBERNETES.md asks for, as a folder for each secret."""
    for name, keys in secrets_of_the_page().items():
        (folder / name).mkdir()
        for key in keys:
            (folder / name / key).write_text(f"made-up-{key}")
    return folder


def partitions_of_the_page():
    """Of churn.events, as docs/KUBERNETES.md tells operators to make it."""
    return int(re.search(r"--partitions (\d+)", PAGE)[1])
