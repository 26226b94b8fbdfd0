"""A made-up broker: partitions with records and gaps, groups with offsets, and a limit to what is read at once."""

import numpy as np

from app.group_marks import GroupMarks, PartitionMarks, RecordsSeen
from app.records import TopicPartition

T0, T1 = TopicPartition("events", 0), TopicPartition("events", 1)


class Log:
    """One partition. records: offset → timestamp; every other offset is a marker, aborted or compacted."""

    def __init__(self, records, *, end, start=0, last_stable=None):
        self.records, self.start, self.end = dict(records), start, end
        self.last_stable = end if last_stable is None else last_stable

    def waiting(self, begin):
        """Offsets of the committed records from there on."""
        low = max(begin, self.start)
        return [offset for offset in sorted(self.records) if low <= offset < self.last_stable]


class MadeBroker:
    """A `GroupReader`. reads: every stretch that was asked for, by look."""

    def __init__(self, logs, *, committed=None, members=0, reads_at_once=None):
        self.logs, self.committed, self.members = dict(logs), dict(committed or {}), members
        self.reads_at_once = reads_at_once
        self.unknown = {}
        self.away = False
        self.looks, self.reads = 0, []

    def marks(self, topics_of):
        self.looks += 1
        if self.away:
            return {group_id: GroupMarks(None, {}, {f"group {group_id}": "no answer"}) for group_id in topics_of}
        return {
            group_id: GroupMarks(
                self.members,
                {
                    source: PartitionMarks(self.committed.get(source), log.start, log.last_stable, log.end)
                    for source, log in self.logs.items()
                    if source.topic in topics
                },
                self.unknown,
            )
            for group_id, topics in topics_of.items()
        }

    def records(self, stretches):
        self.reads.append(dict(stretches))
        seen = {}
        for source, stretch in stretches.items():
            assert stretch.first < stretch.end
            assert stretch.most >= 1
            log = self.logs[source]
            found = [offset for offset in sorted(log.records) if stretch.first <= offset < stretch.end]
            most = min(stretch.most, self.reads_at_once or stretch.most)
            taken = found[:most]
            reached = taken[-1] + 1 if len(found) > most or len(taken) == stretch.most else stretch.end
            stamp = log.records[taken[0]] if taken else None
            seen[source] = RecordsSeen(np.array(taken, np.int64), stamp, reached)
        return seen
