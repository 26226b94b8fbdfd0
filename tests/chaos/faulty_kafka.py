"""Three brokers behind proxies, whose processes and connections can be made to fail, and healed again.

Workers connect through the proxies (`proxied`); whoever judges them does not (`direct`).
"""

import random
from dataclasses import dataclass

from confluent_kafka.admin import AdminClient

from deploy.local.file_lock import locked
from deploy.local.json_record import read_record, write_record
from deploy.local.kafka import Cluster
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.stack import Stack
from deploy.local.toxiproxy import Toxic
from tests.integration.worker_process import WAIT_S, wait_until

BROKERS = (1, 2, 3)
LISTENER = "PROXIED"
START_TIMEOUT_S = 120.0

# Both directions silent, the connections open: what a firewall that drops packets looks like.
BLACKHOLE = (Toxic("timeout", "upstream", (("timeout", 0),)), Toxic("timeout", "downstream", (("timeout", 0),)))
# The broker hears and obeys, and nobody hears it: every result is indefinite.
ANSWERS_LOST = (Toxic("timeout", "downstream", (("timeout", 0),)),)
RESETS = (Toxic("reset_peer", "downstream", (("timeout", 200),)),)  # 200 ms into each connection
LATENCY = (Toxic("latency", "downstream", (("latency", 400), ("jitter", 300))),)
SLICES = (
    Toxic("slicer", "upstream", (("average_size", 200), ("size_variation", 100), ("delay", 200))),
    Toxic("slicer", "downstream", (("average_size", 200), ("size_variation", 100), ("delay", 200))),
)
NETWORK_FAULTS = {
    "connections reset": RESETS,
    "latency": LATENCY,
    "packets sliced": SLICES,
    "blackhole": BLACKHOLE,
    "answers lost": ANSWERS_LOST,
    "proxies down": None,
}


@dataclass(frozen=True)
class Ports:
    """One broker's listener behind its proxy, and the proxy's own port, which the broker advertises."""

    listener: int
    proxy: int


class FaultyKafka:
    """The rig in a directory. Another object on the same directory means the same rig."""

    def __init__(self, directory, **properties):
        """properties: of the brokers, over those of a small rig."""
        self._stack = Stack(directory)
        self._properties = {name.replace("_", "."): value for name, value in properties.items()}

    def start(self, owner_pid):
        """Start what is missing; the owner's end, however it comes, is the rig's too."""
        self._stack.guard(owner_pid)
        with locked(self._stack.directory / "rig.lock", timeout_s=900):
            if not read_record(self._record):
                numbers = free_ports(2 * len(BROKERS))
                write_record(self._record, [numbers[:3], numbers[3:]])
            self._stack.up(brokers=len(BROKERS), properties=self._properties_of, quick_start=True)
            self._start_proxies()
        return self

    def stop(self):
        """End everything and forget its data."""
        self._stack.down(wipe=True)
        self._record.unlink(missing_ok=True)

    @property
    def direct(self):
        """Bootstrap servers without proxies."""
        return self.cluster.bootstrap_servers

    @property
    def proxied(self):
        """Bootstrap servers behind proxies."""
        return ",".join(f"{LOOPBACK}:{ports.proxy}" for ports in self._ports())

    @property
    def cluster(self):
        """The brokers."""
        return Cluster(self._stack.directory / "kafka", quick_start=True)

    def admin(self):
        """A client for orders and questions."""
        return AdminClient({"bootstrap.servers": self.direct, "log_level": 2})

    def break_network(self, toxics, brokers=BROKERS):
        """Put these toxics before these brokers, or switch their proxies off if there are none."""
        for node_id in brokers:
            if toxics is None:
                self._stack.toxiproxy.switch_off(f"broker-{node_id}")
            for toxic in toxics or ():
                self._stack.toxiproxy.add_toxic(f"broker-{node_id}", toxic)

    def heal_network(self):
        """No toxics, all proxies on."""
        self._stack.toxiproxy.heal()

    def heal(self):
        """Everything runs again, and every partition has all its replicas in sync."""
        self.heal_network()
        for broker in self.cluster.brokers:
            broker.process.resume()
            broker.start(timeout_s=START_TIMEOUT_S)
        self.cluster.wait_until_ready(timeout_s=START_TIMEOUT_S)
        self.wait_until_in_sync()

    def wait_until_in_sync(self):
        """Until another broker may be lost."""
        admin = self.admin()

        def behind():
            topics = admin.list_topics(timeout=10).topics.values()
            return [
                f"{topic.topic}[{partition.id}]"
                for topic in topics
                for partition in topic.partitions.values()
                if partition.leader < 0 or len(partition.isrs) < len(partition.replicas)
            ]

        wait_until(lambda: not behind(), lambda: f"all replicas in sync, behind are {behind()[:5]}", START_TIMEOUT_S)

    def leader(self, topic, partition=0):
        """The broker that leads a partition."""
        known = self.admin().list_topics(topic, timeout=WAIT_S).topics[topic].partitions[partition]
        return self.cluster.broker(known.leader)

    def transaction_coordinator(self, transactional_id):
        """The broker that coordinates transactions of this id."""
        return self._coordinator("__transaction_state", transactional_id)

    def group_coordinator(self, group_id):
        """The broker that coordinates this group."""
        return self._coordinator("__consumer_offsets", group_id)

    def another(self, broker, chance=random):
        """A broker that is not this one."""
        return chance.choice([other for other in self.cluster.brokers if other.node_id != broker.node_id])

    def _coordinator(self, topic, name):
        """It leads the partition that the name's hash says, as in Kafka's Utils.abs(hashCode) % partitions."""
        partitions = self.admin().list_topics(topic, timeout=WAIT_S).topics[topic].partitions
        return self.cluster.broker(partitions[(java_hash(name) & 0x7FFFFFFF) % len(partitions)].leader)

    @property
    def _record(self):
        return self._stack.directory / "proxied-ports.json"

    def _ports(self):
        return [Ports(*numbers) for numbers in zip(*read_record(self._record), strict=True)]

    def _properties_of(self, node_id, own):
        """One more listener, which advertises its proxy; the rest is for quick failover."""
        ports = self._ports()[node_id - 1]
        plain, controller = f"PLAINTEXT://{LOOPBACK}:{own.client}", f"CONTROLLER://{LOOPBACK}:{own.controller}"
        return {
            "listeners": f"{plain},{LISTENER}://{LOOPBACK}:{ports.listener},{controller}",
            "advertised.listeners": f"{plain},{LISTENER}://{LOOPBACK}:{ports.proxy}",
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,{LISTENER}:PLAINTEXT,CONTROLLER:PLAINTEXT",
            **self._properties,
        }

    def _start_proxies(self):
        toxiproxy = self._stack.toxiproxy
        toxiproxy.start()
        for node_id, ports in zip(BROKERS, self._ports(), strict=True):
            if f"broker-{node_id}" not in toxiproxy.proxies():
                toxiproxy.add_proxy(f"broker-{node_id}", port=ports.proxy, server_port=ports.listener)


def java_hash(text):
    """String.hashCode of ASCII, as a signed 32-bit number."""
    value = 0
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value
