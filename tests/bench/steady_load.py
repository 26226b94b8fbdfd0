"""What the runs under steady load share: fresh churn topics, and events that come for as long as a block lasts."""

import subprocess
import sys
from contextlib import contextmanager

from loadgen.bench.broker import create
from loadgen.kafka_client import KafkaOptions
from tests.integration.rig import ROOT, SCHEMAS, Lane
from tests.integration.worker_process import clean_environment

LONG_S = 3_600  # the block ends it


def churn_lane(kafka, store):
    """The three topics, made in a broker of one's own."""
    topics = [f"churn.{kind}" for kind in ("events", "predictions", "dead-letters")]
    create(KafkaOptions(kafka), topics)
    return Lane(kafka, "churn", (topics[0],), topics[1], topics[2], store)


@contextmanager
def events(lane, rate):
    """`rate` events a second from loadgen; its log is beside the store."""
    command = [sys.executable, "-m", "loadgen", "produce", "--bootstrap", lane.kafka, "--topic", lane.inputs[0]]
    command += ["--rate", str(rate), "--duration", str(LONG_S), "--schemas", str(SCHEMAS)]
    with (lane.store.parent / "produce.log").open("wb") as log:
        producer = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=clean_environment())
    try:
        yield
    finally:
        producer.terminate()
        producer.wait()
