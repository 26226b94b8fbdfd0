"""A whole stack in a directory: started once, reused by everybody, taken down by whoever comes last.

<dir>/env                   KAFKA_BOOTSTRAP_SERVERS, SCHEMA_REGISTRY_URL, REDIS_URL, to be sourced by a shell
<dir>/kafka/                one cluster: shape, and per broker its properties, data, log and process record
<dir>/schema-registry/      the registry, once it was asked for
<dir>/redis/                the Redis, once it was asked for
<dir>/toxiproxy/            proxies before the brokers, for tests that put them there
<dir>/lock                  up and down take turns
"""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.local.file_lock import locked
from deploy.local.kafka import Cluster, PropertiesOf
from deploy.local.process import ServerProcess, stop_all
from deploy.local.redis_server import RedisServer
from deploy.local.schema_registry import SchemaRegistry
from deploy.local.toxiproxy import Toxiproxy

_KAFKA = "kafka"
_SCHEMA_REGISTRY = "schema-registry"
_REDIS = "redis"
_TOXIPROXY = "toxiproxy"
_GUARDIAN = "guardian"
_LOCK_TIMEOUT_S = 900.0  # somebody else's first start: two downloads and two starts
_STOP_GRACE_S = 10.0
_SOURCE_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server of a stack. pid is None if it does not run."""

    name: str
    address: str
    pid: int | None
    log: str


@dataclass(frozen=True, slots=True)
class StackStatus:
    """What is in a stack directory: servers that were started, alive or dead, and how to reach what lives.

    environment is what the env file says: a variable per service of which something runs.
    """

    directory: str
    servers: list[ServerStatus]
    environment: dict[str, str]

    @property
    def is_running(self) -> bool:
        """Whether there are servers and every one of them runs."""
        return bool(self.servers) and all(server.pid is not None for server in self.servers)

    def as_dict(self) -> dict[str, object]:
        """Return the status as plain data for JSON, `running` included."""
        return {"running": self.is_running, **asdict(self)}


class Stack:
    """The stack of one directory. Any number of processes may call any method at any time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()

    @property
    def env_file(self) -> Path:
        """Shell assignments for what runs; absent while nothing does."""
        return self.directory / "env"

    @property
    def toxiproxy(self) -> Toxiproxy:
        """The stack's proxies. `up` starts none; `down` ends them with the rest."""
        return Toxiproxy(self.directory / _TOXIPROXY)

    def up(
        self,
        *,
        brokers: int | None = None,
        schema_registry: bool = False,
        redis: bool = False,
        properties: Mapping[str, str] | PropertiesOf | None = None,
        quick_start: bool = False,
    ) -> StackStatus:
        """Start what is missing, leave alone what runs, and return when all of it serves.

        brokers: None means as many as the directory has already, or one.
        properties, quick_start: as for Cluster; they count for brokers started by this call.
        Raises StartFailed, DownloadFailed, StackMismatch or StackBusy.
        """
        with locked(self.directory / "lock", timeout_s=_LOCK_TIMEOUT_S):
            cluster = Cluster(self.directory / _KAFKA, brokers=brokers, properties=properties, quick_start=quick_start)
            cluster.start()
            if schema_registry:
                self._schema_registry.start()
            if redis:
                self._redis.start()
            status = self.status()
            lines = [f"{name}={value}\n" for name, value in status.environment.items()]
            self.env_file.write_text("".join(lines))
            return status

    def guard(self, owner_pid: int) -> None:
        """Tie the stack to a process: when that ends, even killed, the stack goes down and its data is wiped.

        To be called before `up`, by any number of processes for the same owner. `down` ends the guard.
        """
        with locked(self.directory / "lock", timeout_s=_LOCK_TIMEOUT_S):
            if not self._guardian.is_running:
                self._guardian.start(
                    [sys.executable, "-m", "deploy.local.guardian", str(owner_pid), self.directory],
                    {"PYTHONPATH": str(_SOURCE_ROOT)},
                )

    def down(self, *, wipe: bool = False) -> list[str]:
        """End every server that was started in this directory, and return the names of those that ran.

        A process that merely has a recorded pid is not touched.
        wipe: forget topics, schemas, ports and logs too.
        """
        if not self.directory.is_dir():
            return []
        with locked(self.directory / "lock", timeout_s=_LOCK_TIMEOUT_S):
            brokers = [broker.process for broker in self._cluster.brokers]
            servers = [*brokers, self._schema_registry.process, self._redis.process, self.toxiproxy.process]
            names = [server.name for server in servers if server.is_running]
            stop_all(servers, grace_s=_STOP_GRACE_S)
            if self._guardian.pid != os.getpid():  # who may be the caller
                self._guardian.kill()
            self.env_file.unlink(missing_ok=True)
            if wipe:
                for part in (_KAFKA, _SCHEMA_REGISTRY, _REDIS, _TOXIPROXY, _GUARDIAN):
                    shutil.rmtree(self.directory / part, ignore_errors=True)
            return names

    def status(self) -> StackStatus:
        """Return what was started here and what of it runs. Asks the operating system, not the servers."""
        cluster, schema_registry = self._cluster, self._schema_registry
        servers = [_status(broker.process, broker.address) for broker in cluster.brokers]
        environment: dict[str, str] = {}
        if any(broker.is_running for broker in cluster.brokers):
            environment["KAFKA_BOOTSTRAP_SERVERS"] = cluster.bootstrap_servers
        if schema_registry.exists:
            servers.append(_status(schema_registry.process, schema_registry.url))
            if schema_registry.is_running:
                environment["SCHEMA_REGISTRY_URL"] = schema_registry.url
        if self._redis.exists:
            servers.append(_status(self._redis.process, self._redis.url))
            if self._redis.is_running:
                environment["REDIS_URL"] = self._redis.url
        return StackStatus(directory=str(self.directory), servers=servers, environment=environment)

    @property
    def _guardian(self) -> ServerProcess:
        return ServerProcess("guardian", self.directory / _GUARDIAN)

    @property
    def _cluster(self) -> Cluster:
        return Cluster(self.directory / _KAFKA)

    @property
    def _redis(self) -> RedisServer:
        return RedisServer(self.directory / _REDIS)

    @property
    def _schema_registry(self) -> SchemaRegistry:
        return SchemaRegistry(self.directory / _SCHEMA_REGISTRY)


def _status(process: ServerProcess, address: str) -> ServerStatus:
    return ServerStatus(name=process.name, address=address, pid=process.pid, log=str(process.log_path))
