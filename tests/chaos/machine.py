"""Where and with what a run was made."""

import datetime as dt
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import confluent_kafka
import psutil

from deploy.local.artifacts import KAFKA_VERSION, TOXIPROXY_VERSION


def this_machine():
    """Plain facts, for a page that says how its figures were taken."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "commit": commit or "unknown",
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "kafka": KAFKA_VERSION,
        "confluent-kafka": version("confluent-kafka"),
        "librdkafka": confluent_kafka.libversion()[0],
        "toxiproxy": TOXIPROXY_VERSION,
    }
