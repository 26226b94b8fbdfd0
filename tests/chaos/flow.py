"""A pipeline under steady load, watched by a witness: what every chaos test does something to.

with flow.worker() as worker:
    flow.flows()
    ...
    verdict = flow.judged()
"""

import contextlib
import os
import signal
import threading
import time
import uuid

import numpy as np
from confluent_kafka.admin import NewTopic

from loadgen.kafka_client import KafkaOptions
from loadgen.schema_source import SchemaOptions
from loadgen.sending import KafkaSender
from loadgen.verify_plan import VerifyPlan
from tests.chaos.witness import Witness
from tests.integration.rig import SCHEMAS, WAIT_S, Lane
from tests.integration.worker_process import running_worker, wait_until

PARTITIONS = 4
REPLICAS = 3
RATE = 400.0
POISON = 0.002
SESSION_TIMEOUT_S = 3.0
CONSUMER_SESSION_TIMEOUT_S = 4.0  # the brokers', see conftest
CI_MARGIN_S = 30.0  # added to bounds, for a loaded machine; the exact figures are in docs/RELIABILITY.md
TRANSACTION_TIMEOUT_S = 5.0
READER_PROPERTIES = {"socket.timeout.ms": "6000"}  # ours must not wait longer for a frozen broker than the workers
TICK_S = 0.05
READ_TIMEOUT_S = 120.0  # to a stable end, once everything that was broken is whole again
FAILING = "tests.chaos.failing_worker"
CRASHES = {-signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGSEGV}
STACKS_S = 0.5  # to write them down


def make_lane(kafka, store, partitions=PARTITIONS, **config):
    """Fresh topics on three replicas for a churn pipeline. config: of the input topic, `_` for `.`."""
    names = [f"churn.{kind}.{uuid.uuid4().hex[:12]}" for kind in ("events", "predictions", "dead-letters")]
    admin = kafka.admin()
    config = {name.replace("_", "."): str(value) for name, value in config.items()}
    topics = [NewTopic(name, partitions, REPLICAS, config=config if name is names[0] else {}) for name in names]
    for made in admin.create_topics(topics).values():
        made.result(WAIT_S)
    return Lane(kafka.direct, "churn", (names[0],), names[1], names[2], store)


class Feeder:
    """Sends events at a steady rate until told to stop; a broker that is away only delays them."""

    def __init__(self, lane, rate, poison, limit=None):
        """limit: events after which it stops by itself."""
        self._stream = lane.event_stream(poison=poison)
        patience = {"topic.metadata.refresh.interval.ms": "1000", **READER_PROPERTIES}  # partitions may be added
        options = KafkaOptions(lane.kafka, patience)
        self._sender = KafkaSender(options, lane.inputs[0], linger_ms=0.0)
        self._rate, self._limit = rate, limit
        self._ended = threading.Event()
        self._failure = None
        self.sent = 0
        self._thread = threading.Thread(target=self._feed, name="feeder", daemon=True)
        self._thread.start()

    def __str__(self):
        return f"{self.sent} events sent, {'at an end' if self.done else 'going on'}, failure: {self._failure!r}"

    @property
    def done(self):
        """Whether it sent all it was meant to, or failed."""
        return not self._thread.is_alive()

    def stop(self):
        """Until everything sent is acknowledged."""
        self._ended.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _feed(self):
        try:
            began = time.monotonic()
            while not self._ended.wait(TICK_S):
                due = int((time.monotonic() - began) * self._rate) - self.sent
                count = min(due, 4096, *([] if self._limit is None else [self._limit - self.sent]))
                if count > 0:
                    self._send(count)
                if self._limit is not None and self.sent >= self._limit:
                    break
                self._sender.poll()
            self._sender.finish()
        except BaseException as exc:  # noqa: BLE001 - the top of the thread; raised again by stop()
            self._failure = exc

    def _send(self, count):
        chunk = self._stream.chunk(self.sent, np.full(count, time.time_ns() // 1_000_000, np.int64))
        self._sender.send(chunk, 0, count)
        self.sent += count


class Flow:
    """One lane, its settings, its feeder and its witness. Close it when done."""

    def __init__(self, kafka, store, folder, *, mode="exactly_once", protocol="classic", static=False, rate=RATE,
                 poison=POISON, limit=None, settings=None, pipeline=None):  # fmt: skip
        """settings, pipeline: merged over those of a worker behind the proxies, with short timeouts."""
        self.kafka, self.mode, self.protocol, self.static = kafka, mode, protocol, static
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.lane = make_lane(kafka, store)
        self._settings = self.lane.settings(
            pipeline=pipeline,
            kafka={
                "bootstrap_servers": kafka.proxied,
                "group_protocol": protocol,
                "session_timeout_s": SESSION_TIMEOUT_S,
            },
            delivery={"mode": mode, "transaction_timeout_s": TRANSACTION_TIMEOUT_S},
        )
        for name, section in (settings or {}).items():
            self._settings[name] = self._settings.get(name, {}) | section
        self.group_id = self._settings["kafka"]["group_id"]
        self._identities = {}
        plan = VerifyPlan(
            pipeline="churn",
            input_topics=self.lane.inputs,
            prediction_topic=self.lane.output,
            dead_letter_topic=self.lane.dead_letters,
            kafka=KafkaOptions(self.lane.kafka, READER_PROPERTIES),
            schemas=SchemaOptions(SCHEMAS, None),
            store=str(store),
            at_least_once=mode == "at_least_once",
            timeout_s=READ_TIMEOUT_S,
            quiet_s=60.0,
            settle_s=0.5,
        )
        self.witness = Witness(plan)
        self.feeder = Feeder(self.lane, rate, poison, limit)

    def __str__(self):
        return f"{self.mode}, {self.protocol}{', static' if self.static else ''}"

    def settings(self, slot="a"):
        """Of the worker in this slot: always the same identity."""
        identity = self._identities.setdefault(slot, f"worker-{slot}-{uuid.uuid4().hex[:8]}")
        worker = self._settings["worker"] | {"instance_id": identity, "static_membership": self.static}
        return {**self._settings, "worker": worker}

    def transactional_id(self, slot="a"):
        """As the worker in this slot makes it."""
        return f"{self.group_id}-{self.settings(slot)['worker']['instance_id']}-0"

    @contextlib.contextmanager
    def worker(self, slot="a", failpoints="", when=None):
        """A worker for the length of a block; failpoints, when: as failing_worker takes them."""
        environment = {"FAILPOINTS": failpoints, **({"FAILPOINTS_WHEN": str(when)} if when else {})}
        with running_worker(self.settings(slot), self.folder / slot, module=FAILING, **environment) as worker:
            try:
                yield worker
            except BaseException as exc:
                exc.add_note(f"{self}: {self.feeder}, {self.witness.count} outcomes seen")
                exc.add_note(stacks(worker))
                raise

    def kept(self, slot="a"):
        """A worker for the length of a block, started again whenever it ends."""
        return Slot(self, slot)

    def flows(self, tend=lambda: None):
        """Until every partition shows outcomes made after now."""
        return self.recovery_s(now_ms(), tend)

    def recovery_s(self, since_ms, tend=lambda: None):
        """Seconds from then until a reader had seen, in each partition, an outcome made since; waits for it.

        tend: called over and over meanwhile.
        """

        def recovered_ms():
            tend()
            return self.witness.recovered_ms(since_ms, range(PARTITIONS))

        found_ms = wait_until(recovered_ms, f"outcomes in every partition ({self})")
        return (found_ms - since_ms) / 1000

    def judged(self):
        """No more events; the verdict once all are answered, which must be good."""
        self.feeder.stop()
        verdict = self.witness.verdict()
        assert not verdict.violations, f"{self}: {verdict.violations}"
        assert verdict.inputs == self.feeder.sent
        return verdict

    def close(self):
        """End feeder and witness, whatever state they are in."""
        with contextlib.suppress(Exception):
            self.feeder.stop()
        self.witness.close()


class Slot:
    """A worker that is started again whenever it ends, as an orchestrator does. Ended with its block."""

    def __init__(self, flow, name):
        self._flow, self.name = flow, name
        self._blocks = contextlib.ExitStack()
        self.crashes = []  # the last words of those that neither ended by themselves nor were told to
        self.ends = []  # exit statuses it gave by itself, or other than 0 when it was told to stop

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *failure):
        self._blocks.__exit__(*failure)

    def start(self):
        """Another process with the same identity."""
        self.worker = self._blocks.enter_context(self._flow.worker(self.name))

    def stop(self):
        """SIGTERM, and wait."""
        if status := self.worker.stop():
            self.ends.append(status)

    def tend(self):
        """Start it again if it has ended."""
        if not self.worker.lives:
            self.ends.append(self.worker.wait())
            if self.ends[-1] in CRASHES:
                self.crashes.append(self.worker.tail())
            self.start()


def recoveries_s(kept, since_ms):
    """`Flow.recovery_s` of each (flow, slot), by name of the flow; any worker that ends is started again at once."""

    def tend():
        for _, slot in kept:
            slot.tend()

    return {str(stream): stream.recovery_s(since_ms, tend) for stream, _ in kept}


def stacks(worker):
    """What each thread of a failing worker is doing, if it can still say."""
    said = len(worker.log)
    if worker.lives:
        os.kill(worker.pid, signal.SIGUSR1)
        time.sleep(STACKS_S)
    return worker.log[said:]


def now_ms():
    """Wall clock, as records are stamped."""
    return time.time_ns() / 1e6
