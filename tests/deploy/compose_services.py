"""docker-compose.yml as plain data, for tests of what is in it."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"


def compose():
    """The file with anchors and merges resolved; variables are as they are written."""
    return yaml.safe_load(COMPOSE_FILE.read_text())


def is_ours(service):
    """Whether it is built from this repository."""
    return "build" in service


def is_job(service):
    """Whether it ends by itself."""
    return service["restart"] == "no"


def bind_mounts(service):
    """What of the repository is mounted: path in the container -> file or folder here."""
    pairs = [volume.split(":")[:2] for volume in service.get("volumes", [])]
    return {target: (ROOT / source).resolve() for source, target in pairs if source.startswith("./")}
