"""Real processes under a real autoscaling loop: fleets of workers, a load with a shape, what the broker says of both.

Nothing here is simulated but the model, which costs what it is told to, and Kubernetes, whose algorithm is in
`autoscaler.py`. Time may be faster than real: then every period of the loop and of the policy is shorter by `scale`,
while processes start and groups rebalance at their own speed.
"""

import itertools
import json
import math
import signal
import threading
import time
import uuid
from collections import deque
from pathlib import Path

import numpy as np
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.integration.rig import Lane
from tests.integration.worker_process import WorkerProcess

EVENTS_KEPT = 50_000  # encoded once, sent again and again: the load costs next to nothing
SEND_EVERY_S = 0.05
CATCH_UP_S = 0.25  # of time without a turn, what is sent late; more would be a surge that is not in the shape
WAIT_S = 60.0
NAMESPACE = "inference"  # which a cluster's Prometheus knows of a pod, and the overlay's query asks for
OUTPUTS = ("predictions", "dead-letters")


def lanes(kafka, store, names, partitions):
    """Fleet → its lane: one topic of events for all of them, outputs of their own; names nobody else has."""
    own = uuid.uuid4().hex[:12]
    events, outputs = (
        f"churn.events.{own}",
        {name: [f"churn.{kind}.{name}.{own}" for kind in OUTPUTS] for name in names},
    )
    topics = [NewTopic(topic, partitions, 1) for topic in [events, *itertools.chain(*outputs.values())]]
    admin = AdminClient({"bootstrap.servers": kafka})
    for made in admin.create_topics(topics).values():
        made.result(30)
    return {
        name: Lane(kafka, "churn", (events,), predictions, dead_letters, store)
        for name, (predictions, dead_letters) in outputs.items()
    }


class Load(threading.Thread):
    """Sends events at a rate that changes; stopped by `stop`. Until `begin` it sends what is due at 0 s."""

    def __init__(self, lane, rate):
        """rate: seconds since `begin` → events a second."""
        super().__init__(daemon=True)
        self._rate, self._topic = rate, lane.inputs[0]
        now_ms = np.full(EVENTS_KEPT, time.time_ns() // 1_000_000, np.int64)
        chunk = lane.event_stream().chunk(0, now_ms)
        self._events = itertools.cycle(zip(chunk.keys, chunk.values, strict=True))
        self._producer = Producer({"bootstrap.servers": lane.kafka, "linger.ms": 20, "compression.type": "lz4"})
        self._over = threading.Event()
        self._begun_at_s = math.inf

    def begin(self):
        """The load's time starts now."""
        self._begun_at_s = time.monotonic()

    def run(self):
        last_s, due, sent = time.monotonic(), 0.0, 0
        while not self._over.wait(SEND_EVERY_S):
            now_s = time.monotonic()
            due += self._rate(max(0.0, now_s - self._begun_at_s)) * min(now_s - last_s, CATCH_UP_S)
            last_s = now_s
            for key, value in itertools.islice(self._events, int(due) - sent):
                self._send(key, value)
            sent = int(due)
            self._producer.poll(0)
        self._producer.flush(WAIT_S)

    def _send(self, key, value):
        while True:
            try:
                return self._producer.produce(self._topic, key=key, value=value)
            except BufferError:  # the broker has no time: the load is late, and comes all the same
                self._producer.poll(0.1)

    def stop(self):
        self._over.set()
        if self.is_alive():
            self.join(WAIT_S)


class Fleet:
    """Worker processes of one group, as many as it is told; those that drain are paid for until they have ended."""

    def __init__(self, name, lane, group_id, folder, *, capacity, batch_s=0.001, max_records=512):
        self.name, self.group_id = name, group_id
        self._lane, self._folder = lane, folder / name
        row_s = (max_records / capacity - batch_s) / max_records
        self._cost = {"BENCH_BATCH_COST_S": str(batch_s), "BENCH_ROW_COST_S": str(row_s)}
        self._running, self._leaving, self._numbers = [], [], itertools.count()

    @property
    def size(self):
        """What a Deployment would call its replicas."""
        return len(self._running)

    @property
    def paid(self):
        """Those that still drain included."""
        self._leaving = [worker for worker in self._leaving if worker.lives]
        return len(self._running) + len(self._leaving)

    @property
    def ports(self):
        """Where those that have started can be scraped."""
        return [said[0]["http_port"] for worker in self._running if worker.lives and (said := worker.said("started"))]

    @property
    def dead(self):
        """Logs of those that ended unasked."""
        return [worker.tail() for worker in self._running if not worker.lives]

    def scale(self, size):
        """So many from now on; the youngest go first, as in a StatefulSet."""
        while self.size > size:
            worker = self._running.pop()
            worker.terminate()
            self._leaving.append(worker)
        while self.size < size:
            self._running.append(self._start())

    def stop(self):
        for worker in [*self._running, *self._leaving]:
            worker.kill()

    def wait_until_assigned(self):
        for worker in self._running:
            worker.wait_until_assigned()

    def _start(self):
        settings = self._lane.settings(
            kafka={"group_id": self.group_id},
            worker={"instance_id": f"{self.name}-{next(self._numbers)}"},
            pipeline={"batch": {"max_wait_s": 0.05}},
        )
        return WorkerProcess(settings, self._folder, module="tests.bench.fixed_cost_worker", **self._cost)


class Progress:
    """What the broker says of a topic and its groups, look by look: the independent judge. Not for several threads."""

    def __init__(self, kafka, topic, group_ids):
        self._consumers = {
            group_id: Consumer({"bootstrap.servers": kafka, "group.id": group_id}) for group_id in group_ids
        }
        any_consumer = next(iter(self._consumers.values()))
        self._partitions = [
            TopicPartition(topic, number)
            for number in any_consumer.list_topics(topic, timeout=WAIT_S).topics[topic].partitions
        ]
        self._any = any_consumer
        self._ends = deque()  # (when, end of every partition)

    def look(self):
        """Group → (records it has not finished, age of the oldest of them: as old as the look that first saw it)."""
        now_s = time.monotonic()
        committed = {group_id: self._committed(group_id) for group_id in self._consumers}
        ends = np.array([self._any.get_watermark_offsets(p, timeout=WAIT_S)[1] for p in self._partitions])
        self._ends.append((now_s, ends))
        return {group_id: self._of(found, ends, now_s) for group_id, found in committed.items()}

    def arrived(self):
        """Records so far."""
        return int(self._ends[-1][1].sum())

    def close(self):
        for consumer in self._consumers.values():
            consumer.close()

    def _committed(self, group_id):
        found = self._consumers[group_id].committed(self._partitions, timeout=WAIT_S)
        return np.array([max(partition.offset, 0) for partition in found])

    def _of(self, committed, ends, now_s):
        """Age: since the last look at which a partition's end was not yet beyond what is finished."""
        oldest_s = now_s
        for at_s, then in reversed(self._ends):
            if not np.any((then > committed) & (ends > committed)):
                break
            oldest_s = at_s
        return int(np.maximum(ends - committed, 0).sum()), now_s - oldest_s


class Targets:
    """The list of targets that Prometheus reads, written anew when it changes."""

    def __init__(self, path):
        self.path, self._last = path, None
        self.write({})

    def write(self, ports):
        """Job → ports."""
        page = json.dumps(
            [
                {"targets": [f"127.0.0.1:{port}" for port in found], "labels": {"fleet": job}}
                for job, found in ports.items()
            ]
        )
        if page != self._last:
            self._last = page
            fresh = self.path.with_suffix(".new")
            fresh.write_text(page)
            fresh.replace(self.path)


def prometheus_configuration(folder, *, lag_port, scrape_s, targets):
    """Written into the folder: the lag exporter's job and the workers'."""
    scrape = f"{round(scrape_s * 1000)}ms"
    page = {
        "global": {"scrape_interval": scrape, "scrape_timeout": scrape, "evaluation_interval": scrape},
        "scrape_configs": [
            {
                "job_name": "inference-lag",
                "static_configs": [{"targets": [f"127.0.0.1:{lag_port}"], "labels": {"namespace": NAMESPACE}}],
            },
            {
                "job_name": "inference-worker",
                "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}],
            },
        ],
    }
    path = Path(folder) / "prometheus.yml"
    path.write_text(yaml.safe_dump(page))
    return path


def free_of_signals():
    """SIGTERM ends a bench as Ctrl-C does, so that what it started is stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
