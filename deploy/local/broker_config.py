"""The properties of a broker: small, quick to fail over, and in everything else what Kafka ships.

Delivery is tested against these brokers, so nothing here weakens it: three brokers mean replication factor 3
and two in-sync replicas, for topics and for Kafka's own topics alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.local.ports import LOOPBACK


@dataclass(frozen=True, slots=True)
class BrokerPorts:
    """Where one broker listens: for clients and other brokers, and for the controller quorum."""

    client: int
    controller: int


@dataclass(frozen=True, slots=True)
class Listener:
    """One more way into a lone broker, on loopback; protocol is Kafka's name of it, such as SASL_SSL."""

    name: str
    port: int
    protocol: str

    @property
    def address(self) -> str:
        """As it is listened on and advertised."""
        return f"{self.name}://{LOOPBACK}:{self.port}"


def broker_properties(
    node_id: int,
    ports: Sequence[BrokerPorts],
    log_directory: Path,
    overrides: Mapping[str, str],
    more_listeners: Sequence[Listener] = (),
) -> dict[str, str]:
    """Return the server.properties of broker node_id, from 1; ports has one entry per broker of the cluster.

    overrides win over everything, the listeners included.
    """
    own = ports[node_id - 1]
    replicas = str(len(ports))
    in_sync = "2" if len(ports) >= 3 else "1"
    for_clients = [f"PLAINTEXT://{LOOPBACK}:{own.client}", *(one.address for one in more_listeners)]
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(node_id),
        "controller.quorum.voters": ",".join(
            f"{number}@{LOOPBACK}:{port.controller}" for number, port in enumerate(ports, start=1)
        ),
        "listeners": ",".join([*for_clients, f"CONTROLLER://{LOOPBACK}:{own.controller}"]),
        "advertised.listeners": ",".join(for_clients),
        "listener.security.protocol.map": ",".join(
            ["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT", *(f"{one.name}:{one.protocol}" for one in more_listeners)]
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(log_directory),
        # A topic that nobody made is a mistake to be shown, not to be papered over.
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        # Kafka's own topics: 50 partitions each would be most of the start-up and of the disk.
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        # The first member of a group need not wait three seconds for company.
        "group.initial.rebalance.delay.ms": "0",
        # Short session timeouts: allowed to clients that ask for them (classic), and given to all under the
        # consumer protocol, where the broker decides (as shipped 45 s and 5 s, which each restart would
        # wait).
        "group.min.session.timeout.ms": "1000",
        "group.consumer.min.session.timeout.ms": "1000",
        "group.consumer.session.timeout.ms": "10000",
        "group.consumer.min.heartbeat.interval.ms": "500",
        "group.consumer.heartbeat.interval.ms": "1000",
        # A dead broker is noticed within 6 s instead of 9.
        "broker.session.timeout.ms": "6000",
        # Expired transactions are looked for each second, not every ten: short timeouts then mean something.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    }
    return {**properties, **overrides}
