"""`inference-worker models rollout watch`: whom it asks for figures, and until when."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

from app.clock import SystemClock
from app.errors import BadSettings
from app.rollouts.measurements import NAMES, Measurements
from app.rollouts.watch import Report, Watcher
from app.wiring.stores import named_store, who

SIGNAL_WITHIN_S = 0.25
WORKER_METRICS = "http://127.0.0.1:8080/metrics"  # where a worker on this machine shows them by default


def watch_rollout(
    model: str,
    store: str | None,
    settings_file: Path | None,
    *,
    metrics_urls: Sequence[str],
    prometheus: str | None,
    prometheus_match: str,
    interval_s: float,
    once: bool,
    dry_run: bool,
    tell: Callable[[Report], None],
) -> str:
    """`inference-worker models rollout watch`: until SIGINT or SIGTERM, or `once`; returns how it ended.

    Raises what `named_store` does, and ModelMissing if the model has no rollout.
    """
    # here, because the HTTP client takes a fifth of a worker's start to import, and no worker needs these
    from app.observe.prometheus_server import PrometheusServer  # noqa: PLC0415
    from app.observe.scrape import ScrapedWorkers  # noqa: PLC0415

    if prometheus and metrics_urls:
        raise BadSettings("--metrics-url and --prometheus are both given; workers would be counted twice")
    clock, pages = SystemClock(), named_store(store, settings_file)
    measurements: Measurements = (
        PrometheusServer(model, NAMES, prometheus, clock, match=prometheus_match)
        if prometheus
        else ScrapedWorkers(model, NAMES, metrics_urls or [WORKER_METRICS])
    )
    watcher = Watcher(model, pages, measurements, clock, who=f"rollout watch ({who()})", dry_run=dry_run)
    stop = Event()

    def stopped() -> bool:
        # in short waits: a signal that comes while the interpreter goes to sleep is noticed when it wakes up
        due = clock.monotonic() + interval_s
        while not stop.wait(max(0.0, min(SIGNAL_WITHIN_S, due - clock.monotonic()))):
            if clock.monotonic() >= due:
                return False
        return True

    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if once:
            return watcher.once(tell, stopped).ended
        watcher.run(tell, stopped)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return "stopped"
