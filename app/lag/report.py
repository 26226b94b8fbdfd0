"""One look as rows: for a table, and for JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.lag.readings import GroupLag, PartitionLag

NOTES = {
    "no_committed_offset": "no committed offset",
    "retention_overtook": "retention overtook the group",
    "beyond_the_end": "committed beyond the end",
}


def as_json(looks: Sequence[GroupLag]) -> list[Mapping[str, Any]]:
    """Every figure by name. Null: not known."""
    return [
        {
            "group": lag.group.group_id,
            "members": lag.members,
            "lag_records": lag.records if lag.complete else None,
            "uncounted_offsets": sum(partition.uncounted for partition in lag.partitions),
            "lag_seconds": lag.seconds if lag.complete else None,
            "missed_offsets": sum(partition.missed for partition in lag.partitions),
            "unknown": dict(lag.unknown),
            "partitions": [_partition(partition) for partition in lag.partitions],
        }
        for lag in looks
    ]


def _partition(lag: PartitionLag) -> Mapping[str, Any]:
    return {
        "topic": lag.source.topic,
        "partition": lag.source.partition,
        "lag_records": lag.records,
        "uncounted_offsets": lag.uncounted,
        "lag_seconds": lag.seconds,
        "committed_offset": lag.marks.committed,
        "log_start_offset": lag.marks.log_start,
        "last_stable_offset": lag.marks.last_stable,
        "end_offset": lag.marks.end,
        "last_stable_offset_lag": lag.unstable,
        "missed_offsets": lag.missed,
        "note": lag.note or None,
    }


def as_cells(lag: PartitionLag) -> list[str]:
    """A row of the table: topic, partition, lag, age, committed, last stable, end, notes."""
    committed = "none" if lag.marks.committed is None else f"{lag.marks.committed}"
    remarks = [NOTES[lag.note]] if lag.note else []
    if lag.missed:
        remarks.append(f"{lag.missed} offsets missed")
    if lag.uncounted:
        remarks.append(f"{lag.uncounted} offsets not counted: at most so many fewer")
    if lag.unstable:
        remarks.append(f"{lag.unstable} behind an open transaction")
    return [
        lag.source.topic,
        str(lag.source.partition),
        ("<=" if lag.uncounted else "") + str(lag.records),
        "?" if lag.seconds is None else f"{lag.seconds:.1f} s",
        committed,
        str(lag.marks.last_stable),
        str(lag.marks.end),
        ", ".join(remarks),
    ]
