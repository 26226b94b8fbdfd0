"""What docker-compose.yml would run, as plain data, so that a test can run the same natively.

For each service of ours: program, arguments, environment, and what of the repository is mounted where.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
_IMAGE_ENTRYPOINT = ["inference-worker"]  # of deploy/docker/Dockerfile


@dataclass(frozen=True, slots=True)
class ComposeService:
    """One service that runs an image of ours."""

    name: str
    program: str
    arguments: list[str]
    environment: dict[str, str]
    mounted_files: dict[str, Path]  # path in the container -> file or directory in the repository

    def native(self, replacements, mounts=None):
        """Return (argv, environment) for this machine.

        replacements: text in the container's world -> text in ours ("kafka:19092" -> "127.0.0.1:21234",
        "/var/lib/inference/models" -> a temporary directory); applied to arguments and environment values.
        Mounted files are replaced by the repository's, or by those given in mounts.
        """
        everything = {
            **{path: str(file) for path, file in self.mounted_files.items()},
            **(mounts or {}),
            **replacements,
        }

        def translate(text):
            for ours, theirs in sorted(everything.items(), key=lambda pair: -len(pair[0])):  # the longest path first
                text = text.replace(ours, str(theirs))
            return text

        argv = [self.program, *(translate(argument) for argument in self.arguments)]
        return argv, {name: translate(value) for name, value in self.environment.items()}


def compose():
    """Return docker-compose.yml, anchors and merges resolved."""
    return yaml.safe_load(COMPOSE_FILE.read_text())


def our_services():
    """Return every service that is built from this repository."""
    return [_service(name, service) for name, service in compose()["services"].items() if "build" in service]


def _service(name, service):
    program, *first_arguments = service.get("entrypoint", _IMAGE_ENTRYPOINT)
    return ComposeService(
        name=name,
        program=program,
        arguments=[*first_arguments, *service["command"]],
        environment=dict(service.get("environment", {})),
        mounted_files=dict(_bind_mounts(service)),
    )


def _bind_mounts(service):
    for volume in service.get("volumes", []):
        source, target = volume.split(":")[:2]
        if source.startswith("./"):
            yield target, (ROOT / source).resolve()
