"""`inference-worker monitor`."""

from app.cli.extras import needing_extra
from app.cli.run import ConfigFile


def monitor(config: ConfigFile) -> None:
    """Watch what the models do, until SIGTERM: windows, drift, outcomes; as metrics and in a compacted topic.

    It reads pipelines[].monitoring's topics and what monitor.outcomes names; several instances share the work.

    Exit status: 0 stopped, 1 fatal error (start it again: nothing is lost or counted twice), 2 bad start.

    Example: inference-worker monitor --config deploy/pipelines/churn.yaml
    """
    with needing_extra("monitor"):
        from app.wiring.monitor import run_monitor  # noqa: PLC0415 - slow to load, too
    run_monitor(config)
