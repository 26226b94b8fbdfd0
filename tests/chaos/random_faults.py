"""Faults drawn at random: to workers, each flow its own; to brokers and the network, all flows the same.

A fault is struck, holds for a while, and is repaired. Its recovery counts from the strike where others can take over,
and from the repair where nobody can get through before.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.faulty_kafka import BROKERS, NETWORK_FAULTS
from tests.chaos.flow import now_ms

MOST_WORKERS, FEWEST_WORKERS = 3, 2


@dataclass
class Strike:
    """One fault under way."""

    name: str
    detail: str
    repair: Callable[[], None] = lambda: None
    hold_s: float = 0.0
    repaired_first: bool = False  # nothing can recover before it is repaired
    struck_ms: float = field(default_factory=now_ms)


class Crew:
    """The workers of one flow: two or three, each started again whenever it ends."""

    def __init__(self, flow, workers=FEWEST_WORKERS):
        self.flow, self._number = flow, 0
        self.slots = []
        self._gone = []
        for _ in range(workers):
            self.add()

    def add(self):
        """One more worker, with an identity of its own."""
        self._number += 1
        slot = self.flow.kept(f"w{self._number}")
        slot.start()
        self.slots.append(slot)
        return slot

    def remove(self, slot):
        """It is not started again; what becomes of its process is the caller's business."""
        self.slots.remove(slot)
        self._gone.append(slot)

    def tend(self):
        """Start again who has ended."""
        for slot in self.slots:
            slot.tend()

    def ends(self):
        """Exit statuses that workers gave by themselves."""
        return [status for slot in (*self.slots, *self._gone) for status in slot.ends]

    def crashes(self):
        """The last words of workers that crashed."""
        return [words for slot in (*self.slots, *self._gone) for words in slot.crashes]

    def close(self):
        """End all."""
        for slot in (*self.slots, *self._gone):
            slot.__exit__(None, None, None)


def worker_fault(crew, chance):
    """Strike one worker of a flow."""
    slot = chance.choice(crew.slots)
    kinds = [_kill, _terminate, _pause, _suspend]
    kinds.append(_add if len(crew.slots) < MOST_WORKERS else _remove)
    return chance.choices(kinds, weights=[4, 2, 1, 2, 2])[0](crew, slot, chance)


def _kill(crew, slot, _chance):
    slot.worker.kill()
    strike = Strike("worker kill -9, restarted", slot.name)
    slot.start()
    return strike


def _terminate(crew, slot, _chance):
    strike = Strike("worker SIGTERM, restarted", slot.name)
    slot.stop()
    slot.start()
    return strike


def _pause(crew, slot, chance):
    process = slot.worker
    os.kill(process.pid, signal.SIGSTOP)
    strike = Strike("worker SIGSTOP, shorter than its session", slot.name, hold_s=chance.uniform(0.5, 2.0))
    strike.repair, strike.repaired_first = lambda: os.kill(process.pid, signal.SIGCONT), True
    return strike


def _suspend(crew, slot, _chance):
    """Others take its partitions over; then it wakes up, a zombie."""
    process = slot.worker
    os.kill(process.pid, signal.SIGSTOP)
    strike = Strike("worker SIGSTOP, past its session", slot.name)
    strike.repair = lambda: os.kill(process.pid, signal.SIGCONT)
    return strike


def _add(crew, _slot, _chance):
    strike = Strike("worker added", "")
    strike.detail = crew.add().name
    return strike


def _remove(crew, slot, chance):
    """Kindly or not; nobody takes its place."""
    kindly = chance.random() < 0.5
    strike = Strike("worker removed, SIGTERM" if kindly else "worker removed, kill -9", slot.name)
    crew.remove(slot)
    if kindly:
        slot.stop()
    else:
        slot.worker.kill()
    return strike


def broker_fault(kafka, chance):
    """Strike one broker; the other two go on."""
    broker = kafka.cluster.broker(chance.choice(BROKERS))
    return chance.choices([_kill_broker, _restart_broker, _suspend_broker], weights=[3, 1, 2])[0](kafka, broker, chance)


def _kill_broker(kafka, broker, _chance):
    broker.kill()
    return Strike("broker kill -9", f"broker {broker.node_id}", repair=lambda: _start(kafka, broker))


def _restart_broker(kafka, broker, _chance):
    strike = Strike("broker restart", f"broker {broker.node_id}", repair=lambda: _start(kafka, broker))
    broker.stop()
    return strike


def _suspend_broker(kafka, broker, _chance):
    broker.process.suspend()

    def resume():
        broker.process.resume()
        kafka.wait_until_in_sync()

    return Strike("broker SIGSTOP", f"broker {broker.node_id}", repair=resume)


def _start(kafka, broker):
    broker.start(timeout_s=120)
    kafka.wait_until_in_sync()


def network_fault(kafka, chance):
    """Break the workers' connections to one broker, or to all."""
    name = chance.choice(list(NETWORK_FAULTS))
    brokers = BROKERS if chance.random() < 0.5 else (chance.choice(BROKERS),)
    kafka.break_network(NETWORK_FAULTS[name], brokers)
    where = "all brokers" if len(brokers) > 1 else f"broker {brokers[0]}"
    return Strike(f"network: {name}", where, kafka.heal_network, chance.uniform(1.0, 6.0), repaired_first=True)


def draw(kafka, crews, chance: random.Random):
    """(strike, crews it concerns) of the next round."""
    kind = chance.choices(["worker", "broker", "network"], weights=[60, 15, 25])[0]
    if kind == "worker":
        return [(worker_fault(crew, chance), [crew]) for crew in crews]
    fault = broker_fault if kind == "broker" else network_fault
    return [(fault(kafka, chance), crews)]


def see_through(strikes, recovered):
    """Hold, repair and wait; recovered(crew, since_ms) gives seconds. Returns (strike, crew, seconds) of each."""
    time.sleep(max(strike.hold_s for strike, _ in strikes))
    found = []
    for strike, _ in strikes:
        if strike.repaired_first:
            strike.repair()
            strike.struck_ms = now_ms()
    for strike, crews in strikes:
        found += [(strike, crew, recovered(crew, strike.struck_ms)) for crew in crews]
    for strike, _ in strikes:
        if not strike.repaired_first:
            strike.repair()
    return found
