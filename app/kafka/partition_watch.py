"""Notices that a topic got more partitions while we run.

Which partition an output goes to is settled at the start (docs/DESIGN.md, decision 7) and never changes by itself:
with more partitions keys would move, or a source partition has no counterpart in the outputs. People have to know.
"""

from collections.abc import Iterable
from threading import Event, Thread

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from app.kafka.client_config import ClientPolicy, admin_properties
from app.ports import TopicObserver

EVERY_S = 30.0
ANSWER_WITHIN_S = 10.0


class PartitionWatch:
    """One per process, on a thread of its own: these calls wait for the broker."""

    def __init__(self, policy: ClientPolicy, topics: Iterable[str], observer: TopicObserver) -> None:
        self._policy, self._observer = policy, observer
        self._counts: dict[str, int | None] = dict.fromkeys(sorted(topics))
        self._closing = Event()
        self._thread = Thread(target=self._run, name="partition-watch", daemon=True)

    def start(self) -> None:
        """Look now, and then every 30 seconds."""
        self._thread.start()

    def close(self) -> None:
        """Look no more; waits for nothing."""
        self._closing.set()

    def _run(self) -> None:
        admin = AdminClient(admin_properties(self._policy))
        log = structlog.get_logger()
        while not self._closing.is_set():
            for topic, before in self._counts.items():
                try:
                    now = len(admin.list_topics(topic, timeout=ANSWER_WITHIN_S).topics[topic].partitions)
                except KafkaException:
                    continue  # an outage shows elsewhere
                if not now:
                    continue  # unknown at the moment
                self._counts[topic] = now
                if before is not None and now != before:
                    log.error("partition_count_changed", topic=topic, before=before, now=now)
                    self._observer.partitions_changed(topic)
            self._closing.wait(EVERY_S)
