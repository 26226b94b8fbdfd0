"""docs/RELIABILITY.md from what a long run measured. No number that is not in there."""

from statistics import median

LAWS = ("lost", "doubled", "out_of_order", "phantom")
HEAD = """# Reliability

What was done to the workers, and what became of every record. This page is written by `make chaos`; its figures are
those of one run:

```
{command}
```

{date}, commit {commit}: {seconds} s on {cpus} cores and {memory_gb} GB ({platform}), shared by three Kafka {kafka}
brokers (replication 3, min ISR 2), toxiproxy {toxiproxy} between them and the workers, two flows of two or three
workers each, their feeders, and the readers. Python {python}, confluent-kafka {confluent-kafka},
librdkafka {librdkafka}. Seed {seed}. Timeouts: {timeouts}.

A reader with `read_committed` read all outcomes *while* the faults happened. After every 25 faults it judged what it
had seen so far, at the end everything; a violation would have ended the run, and there would be no page:

- **lost**: an input without an outcome (I1; an offset committed too early, I3, shows as this after the next restart).
  Only the end can tell, so this is in the first table alone
- **doubled**: an input with more than one (I1)
- **out of order**: source offsets do not increase in an output partition (I2)
- **phantom**: an outcome without an input (I4)

*Recovery* is the time until every partition had shown an outcome made after the fault. It counts from the fault, or
from its end where nobody can get through before (network faults, a short SIGSTOP). What the feeder and the reader
wait themselves for a broker that does not answer is part of it.
"""


def page(found):
    """The whole page."""
    facts = found["machine"] | {key: found[key] for key in ("command", "seed", "seconds")}
    facts["timeouts"] = ", ".join(f"`{name}` {value:g}" for name, value in found["timeouts"].items())
    parts = [HEAD.format(**facts), "## Records\n", _records(found["flows"])]
    for mode in dict.fromkeys(flow["mode"] for flow in found["flows"]):
        flows = [flow for flow in found["flows"] if flow["mode"] == mode]
        faults = [fault for fault in found["faults"] if fault["mode"] == mode]
        runs = len({fault["number"] for fault in faults})
        parts += [f"## {runs} random faults, {mode}\n", _faults(faults, flows)]
    parts += ["## Restarts against their bounds, exactly_once\n", _restarts(found["restarts"])]
    return "\n".join(parts)


def _table(head, rows):
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def _records(flows):
    head = ["flow", "inputs", "predictions", "dead letters", "lost", "doubled", "out of order", "phantom", "repeated",
            "workers that ended by themselves"]  # fmt: skip
    rows = []
    for flow in flows:
        laws = [0] * len(LAWS)  # a violation ends a run, and there is no page
        if flow["mode"] == "at_least_once":
            laws[1] = "allowed"
        ends = ", ".join(f"exit {status}: {count}" for status, count in flow["worker_ends"].items()) or "none"
        counts = [f"{flow[name]:,}" for name in ("inputs", "predictions", "dead_letters")]
        rows.append([f"{flow['mode']}, {flow['protocol']}", *counts, *laws, f"{flow['repeated']:,}", ends])
    return _table(head, rows)


def _faults(faults, flows):
    """A violation ends a run, so a page exists only where these laws held after every fault."""
    protocols = list(dict.fromkeys(flow["protocol"] for flow in flows))
    head = ["fault", "runs", *(law.replace("_", " ") for law in LAWS[1:])]
    laws = ["allowed" if flows[0]["mode"] == "at_least_once" else 0, 0, 0]
    head += [f"{protocol}: recovery p50 / max, s" for protocol in protocols]
    rows = []
    for name in sorted({fault["fault"] for fault in faults}):
        same = [fault for fault in faults if fault["fault"] == name]
        row = [name, len({fault["number"] for fault in same}), *laws]
        for protocol in protocols:
            times = [fault["recovery_s"] for fault in same if fault["protocol"] == protocol]
            row.append(f"{median(times):.1f} / {max(times):.1f}" if times else "—")
        rows.append(row)
    return _table(head, rows)


def held(restart):
    """Whether the slowest of a configuration's restarts kept its bound."""
    return max(restart["recoveries_s"]) <= restart["bound_s"]


def _restarts(restarts):
    rows = []
    for one in restarts:
        times = one["recoveries_s"]
        rows.append(
            [
                one["configuration"],
                len(times),
                f"{median(times):.1f}",
                f"{max(times):.1f}",
                f"{one['bound_s']:g}",
                "yes" if held(one) else "**no**",
            ]
        )
    return _table(["kill -9 of a worker", "runs", "p50, s", "max, s", "bound, s", "held"], rows)
