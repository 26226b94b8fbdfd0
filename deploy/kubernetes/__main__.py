"""`python -m deploy.kubernetes [--check]`: Prometheus' rule files as PrometheusRule manifests for its operator.

Kustomize takes nothing from outside its folder and cannot put one document into another, so what it is to apply is
written here, from the files that promtool tests.
"""

import sys
from pathlib import Path

import yaml

RULE_FILES = Path(__file__).parents[1] / "prometheus"
MANIFESTS = Path(__file__).parent / "base" / "observing" / "rules"
_WRITTEN = "# Written by `python -m deploy.kubernetes` from {}: change that file, not this one.\n"


def manifests() -> dict[str, str]:
    """File name -> content, for every rule file, and the kustomization that lists them."""
    found = {}
    for file in sorted(RULE_FILES.glob("*.rules.yaml")):
        name = file.name.removesuffix(".rules.yaml")
        rule = {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": f"inference-{name}", "labels": {"app.kubernetes.io/name": "inference-worker"}},
            "spec": {"groups": yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]},
        }
        found[f"{name}.yaml"] = _WRITTEN.format(f"deploy/prometheus/{file.name}") + _yaml(rule)
    listing = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(found),
    }
    found["kustomization.yaml"] = _WRITTEN.format("deploy/prometheus/*.rules.yaml") + _yaml(listing)
    return found


def stale(folder: Path = MANIFESTS) -> list[str]:
    """Names of files that are missing, not as they would be written, or left over."""
    wanted = manifests()
    there = {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*.yaml")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def write(folder: Path = MANIFESTS) -> None:
    """Make the folder hold exactly these."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = manifests()
    for file in folder.glob("*.yaml"):
        if file.name not in wanted:
            file.unlink()
    for name, content in wanted.items():
        (folder / name).write_text(content, encoding="utf-8")


def _yaml(content: object) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)


def main() -> int:
    """Exit status: 1 if --check finds something to write."""
    if "--check" in sys.argv[1:]:
        if names := stale():
            sys.stderr.write(f"out of date, run python -m deploy.kubernetes: {', '.join(names)}\n")
        return 1 if names else 0
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
