"""Hundreds of random faults over a million records, and what became of them: `make chaos`.

Two flows at a time, one per group protocol, each with two or three workers: exactly_once for the first half of the
faults, at_least_once for the second. After each fault everybody waits until every partition shows outcomes made since;
every 25 faults all laws but `lost` are judged on what was read so far, at the end all laws. A violation ends the
run, with the workers' logs kept. Writes var/chaos.json and, from it, docs/RELIABILITY.md.

    python -m tests.chaos.long_run --faults 200 --records 1000000 --seed 7
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from app.wiring import training
from tests.chaos.faulty_kafka import FaultyKafka
from tests.chaos.flow import Flow
from tests.chaos.machine import this_machine
from tests.chaos.random_faults import Crew, draw, see_through
from tests.chaos.reliability_page import held, page
from tests.chaos.restart_times import restart_times

ROOT = Path(__file__).parents[2]
RESULT, PAGE = ROOT / "var" / "chaos.json", ROOT / "docs" / "RELIABILITY.md"
MODES, PROTOCOLS = ("exactly_once", "at_least_once"), ("classic", "consumer")
RATE = 400.0  # events/s into each flow; two flows make a million records in 21 minutes
JUDGE_EVERY = 25  # faults: a judgement goes over everything again, half a minute of a core at the end
SESSION_TIMEOUT_S, TRANSACTION_TIMEOUT_S = 4.0, 10.0
TIMEOUTS = {
    "session_timeout_s (classic)": SESSION_TIMEOUT_S,
    "group.consumer.session.timeout.ms": 4000,
    "transaction_timeout_s": TRANSACTION_TIMEOUT_S,
    "broker.session.timeout.ms": 6000,
    "socket.timeout.ms of feeders and readers": 6000,
}


class Violated(Exception):
    """A promise was broken; the message says which, and after which fault."""


class Phase:
    """One delivery mode: a flow and a crew per group protocol."""

    def __init__(self, kafka, store, folder, mode, chance):
        self._kafka, self._chance, self.mode = kafka, chance, mode
        self._blocks = contextlib.ExitStack()
        self.faults, self.crews, self._judged = [], [], 0
        for protocol in PROTOCOLS:
            flow = Flow(
                kafka, store, folder / f"{mode}-{protocol}", mode=mode, protocol=protocol, rate=RATE,
                settings={
                    "kafka": {"session_timeout_s": SESSION_TIMEOUT_S},
                    "delivery": {"transaction_timeout_s": TRANSACTION_TIMEOUT_S},
                },
            )  # fmt: skip
            self._blocks.enter_context(contextlib.closing(flow))
            self.crews.append(self._blocks.enter_context(contextlib.closing(Crew(flow))))

    def __enter__(self):
        for crew in self.crews:
            crew.flow.flows(crew.tend)
        return self

    def __exit__(self, *failure):
        self._blocks.__exit__(*failure)

    @property
    def sent(self):
        """Events sent into both flows."""
        return sum(crew.flow.feeder.sent for crew in self.crews)

    def round(self):
        """One fault to each flow, or one to what they share."""
        strikes = draw(self._kafka, self.crews, self._chance)
        seen = see_through(strikes, lambda crew, since_ms: crew.flow.recovery_s(since_ms, self._tend))
        for number, (strike, _) in enumerate(strikes, start=len({fault["number"] for fault in self.faults}) + 1):
            for struck, crew, recovery_s in seen:
                if struck is strike:
                    self.faults.append(
                        {
                            "number": number,
                            "fault": strike.name,
                            "detail": strike.detail,
                            "mode": self.mode,
                            "protocol": crew.flow.protocol,
                            "recovery_s": round(recovery_s, 2),
                        }
                    )
        if self.count >= self._judged + JUDGE_EVERY:
            self._judge()

    def _judge(self):
        since = [fault["fault"] for fault in self.faults if fault["number"] > self._judged]
        for crew in self.crews:
            if wrong := crew.flow.witness.violations_so_far():
                raise Violated(f"{crew.flow} after {since}: {wrong}")
        self._judged = self.count

    @property
    def count(self):
        """Faults so far; one that hits both flows counts once."""
        return len({fault["number"] for fault in self.faults})

    def judged(self):
        """One summary per flow."""
        return [self._summary(crew) for crew in self.crews]

    def crashes(self):
        """The last words of workers that crashed."""
        return [words for crew in self.crews for words in crew.crashes()]

    def _summary(self, crew):
        crew.flow.feeder.stop()
        verdict = crew.flow.witness.verdict()
        if verdict.violations:
            raise Violated(f"{crew.flow}, at the end: {verdict.violations}")
        outcomes = verdict.predictions + sum(verdict.dead_letters.values())
        return {
            "mode": self.mode,
            "protocol": crew.flow.protocol,
            "inputs": verdict.inputs,
            "predictions": verdict.predictions,
            "dead_letters": sum(verdict.dead_letters.values()),
            "repeated": outcomes - verdict.inputs,
            "worker_ends": dict(Counter(str(status) for status in crew.ends())),
        }

    def _tend(self):
        for crew in self.crews:
            crew.tend()


def run(kafka, store, folder, *, faults, records, seed, say):
    """Everything that was seen, as JSON. Raises Violated."""
    chance = random.Random(seed)
    struck, flows = [], []
    for number, mode in enumerate(MODES):
        with Phase(kafka, store, folder, mode, chance) as phase:
            share = [faults - faults // 2, faults // 2][number]
            while phase.count < share or phase.sent < records / len(MODES):
                phase.round()
                last = phase.faults[-1]
                say(f"{mode}: {phase.count} faults, {phase.sent} records; {last['fault']}: {last['recovery_s']} s")
            flows += phase.judged()
            for words in phase.crashes():
                say(f"a worker crashed: {words}")
            struck += phase.faults
    return {"flows": flows, "faults": struck}


def main():
    """The command."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--faults", type=int, default=200)
    options.add_argument("--records", type=int, default=1_000_000)
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    options.add_argument("--restarts", type=int, default=3, help="of each configuration whose recovery is bounded")
    options.add_argument("--result", type=Path, default=RESULT)
    options.add_argument("--page", type=Path, default=PAGE)
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # through the clean-up below
    began = time.monotonic()

    def say(text):
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)  # noqa: T201 - a command

    say(f"seed {chosen.seed}")
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    kafka = FaultyKafka(folder / "kafka", group_consumer_session_timeout_ms="4000", log_retention_ms="-1")
    try:
        kafka.start(os.getpid())
        training.train(
            "churn", store=str(folder / "models"), estimator=None, rows=5_000, seed=0, progress=lambda _: None
        )
        say("restart times")
        restarts = restart_times(kafka, folder / "models", folder, chosen.restarts)
        for one in restarts:
            say(f"{one['configuration']}: {one['recoveries_s']} s, bound {one['bound_s']:g} s")
        found = run(
            kafka, folder / "models", folder,
            faults=chosen.faults, records=chosen.records, seed=chosen.seed, say=say,
        )  # fmt: skip
        found["restarts"] = restarts
    except BaseException:
        say(f"the logs are kept in {folder}")
        raise
    finally:
        kafka.stop()
    shutil.rmtree(folder)
    found = {
        "command": f"python -m tests.chaos.long_run --faults {chosen.faults} --records {chosen.records} "
        f"--seed {chosen.seed} --restarts {chosen.restarts}",
        "seed": chosen.seed,
        "seconds": round(time.monotonic() - began),
        "machine": this_machine(),
        "timeouts": TIMEOUTS,
        **found,
    }
    chosen.result.parent.mkdir(exist_ok=True)
    chosen.result.write_text(json.dumps(found, indent=1) + "\n")
    chosen.page.write_text(page(found))
    say(f"{chosen.result} and {chosen.page} are written")
    if late := [one["configuration"] for one in restarts if not held(one)]:
        sys.exit(f"nothing was lost or doubled, but these restarts took longer than their bound: {'; '.join(late)}")


if __name__ == "__main__":
    try:
        main()
    except Violated as exc:
        sys.exit(f"violated: {exc}")
