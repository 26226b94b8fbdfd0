"""What a trace tells of a version that was asked about rows of a batch."""

from app.facts import Asked
from app.ports import TraceFacts

ASKED = "inference.model.asked"  # the event's name


def facts_of(asked: Asked) -> TraceFacts:
    """Its attributes. bisected: the batch was halved until the rows that failed were alone."""
    facts: dict[str, str | int | float | bool] = {
        "inference.model": asked.model,
        "inference.model_version": asked.version,
        "inference.rows_answered": asked.answered,
        "inference.rows_failed": asked.rows_failed,
        "inference.rows_bad_output": asked.bad_output,
        "inference.model_at_fault": asked.failed,
        "inference.bisected": bool(asked.rows_failed) and not asked.failed and asked.seconds is not None,
    }
    return facts if asked.seconds is None else {**facts, "inference.seconds": asked.seconds}
