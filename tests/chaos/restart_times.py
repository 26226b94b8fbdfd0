"""How long a restart or an inheritance takes, per group protocol, as shipped and tuned."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.chaos.flow import Flow, now_ms

TRANSACTION_TIMEOUT_S = 10.0
STOCK_CONSUMER_SESSION_S = 45.0


@dataclass(frozen=True)
class Configuration:
    """A way to run workers, and what its first outcome after kill -9 may take. inherited: nobody restarts the dead."""

    name: str
    protocol: str
    bound_s: float
    session_timeout_s: float
    static: bool = False
    inherited: bool = False


CONFIGURATIONS = (
    Configuration("classic, static membership", "classic", 3.0, 10.0, static=True),
    Configuration("classic, session 10 s (stock)", "classic", 15.0, 10.0),
    Configuration("classic, session 3 s (tuned)", "classic", 8.0, 3.0),
    Configuration("consumer, session 4 s (tuned)", "consumer", 9.0, 4.0),
    Configuration("classic, session 3 s, inherited", "classic", 18.0, 3.0, inherited=True),
    Configuration("consumer, session 4 s, inherited", "consumer", 19.0, 4.0, inherited=True),
)
SLOW = Configuration("consumer, session 45 s (stock)", "consumer", 50.0, STOCK_CONSUMER_SESSION_S)


def restart_times(kafka, store, folder, runs):
    """One dict per configuration, with the seconds of each run.

    The first has the machine to itself: its bound is hardly more than a start. The slow one runs beside the others.
    """
    first, *others = CONFIGURATIONS
    found = [_times(kafka, store, folder, first, runs)]
    with ThreadPoolExecutor(1) as beside:
        slow = beside.submit(_times, kafka, store, folder, SLOW, runs)
        found += [_times(kafka, store, folder, one, runs) for one in others]
        return [*found, slow.result()]


def _times(kafka, store, folder, one, runs):
    settings = {
        "kafka": {"session_timeout_s": one.session_timeout_s},
        "delivery": {"transaction_timeout_s": TRANSACTION_TIMEOUT_S},
    }
    path = folder / one.name.replace(" ", "-")
    flow = Flow(kafka, store, path, protocol=one.protocol, static=one.static, rate=100.0, settings=settings)
    with contextlib.closing(flow):
        if one.protocol == "consumer":
            _set_session_timeout(kafka, flow.group_id, one.session_timeout_s)
        times = [_inherited_s(flow) if one.inherited else _restarted_s(flow) for _ in range(runs)]
        with flow.worker() as worker:
            flow.judged()
            worker.stop()
    return {"configuration": one.name, "bound_s": one.bound_s, "recoveries_s": [round(time, 2) for time in times]}


def _restarted_s(flow):
    with flow.worker() as worker:
        flow.flows()
        worker.kill()
        killed_ms = now_ms()
        with flow.worker() as again:
            recovery_s = flow.recovery_s(killed_ms)
            again.stop()
    return recovery_s


def _inherited_s(flow):
    """The dead one leaves a transaction open, with offsets pending in it."""
    with flow.worker("heir") as heir:
        heir.wait_until_ready()
        with flow.worker("doomed", failpoints="after_send_offsets_to_transaction@20=kill") as doomed:
            doomed.wait()
            recovery_s = flow.recovery_s(now_ms())
        heir.stop()
    return recovery_s


def _set_session_timeout(kafka, group_id, seconds):
    """Of this group alone, as an operator would."""
    entry = ConfigEntry(
        "consumer.session.timeout.ms", str(int(seconds * 1000)), incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(ResourceType.GROUP, group_id, incremental_configs=[entry])
    admin = kafka.admin()  # one that is collected early cancels what it was told
    for altered in admin.incremental_alter_configs([resource]).values():
        altered.result(30)
