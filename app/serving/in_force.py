"""What answers now, and how rows become its events.

A vector's numbers are in the order of a manifest: of the version that the request names, else of stable. They become
events by that manifest, with fields by name and categories as text, so whichever version of the rollout then answers
makes its own features of them.
"""

from dataclasses import dataclass

import pyarrow as pa

from app.answering.event_columns import EventColumns
from app.answering.lineup import Lane, Lineup
from app.serving.question import Question
from app.serving.refusals import BadRequest, NotFound


@dataclass(frozen=True, slots=True)
class InForce:
    """The lineup, and for each of its lanes how rows become its events.

    lacking: versions that take fields which a vector in stable's order does not have, and which.
    """

    lineup: Lineup
    by_lane: tuple[EventColumns, ...]
    lacking: tuple[tuple[str, str], ...] = ()

    @property
    def events(self) -> EventColumns:
        """Stable's."""
        return self.by_lane[0]

    @property
    def versions(self) -> list[str]:
        """Those that answer, stable first."""
        return list(dict.fromkeys(lane.version for lane in self.lineup.lanes))

    def lane_index(self, version: str | None) -> int:
        """Of the first lane with this version; None is stable. Raises NotFound."""
        if version is None:
            return 0
        for index, lane in enumerate(self.lineup.lanes):
            if lane.version == version:
                return index
        raise NotFound(f"version {version[:100]!r} is not answering; answering: {', '.join(self.versions)}")

    def lane_of(self, version: str | None) -> Lane:
        """The same, the lane itself."""
        return self.lineup.lanes[self.lane_index(version)]

    def events_of(self, version: str | None) -> EventColumns:
        """The same, how rows become its events."""
        return self.by_lane[self.lane_index(version)]

    def events_for(self, question: Question) -> EventColumns:
        """How this question's rows become events.

        Raises NotFound, and BadRequest for vectors of a rollout with versions that they have not all fields for.
        """
        if self.lacking and question.vectors is not None and question.version is None and question.keys is not None:
            version, fields = self.lacking[0]
            raise BadRequest(
                f"features: version {version} takes {fields}, which a list in the order of version "
                f"{self.lineup.lanes[0].version} does not have: name the fields, or a version",
                field="features",
            )
        return self.events_of(question.version)


def in_force_of(lineup: Lineup, event: pa.Schema, before: InForce | None) -> InForce:
    """What is in force with this lineup, of events with these columns. What `before` has that is the same is kept."""
    known = [] if before is None else [events for events in before.by_lane if events.schema is event]
    made: list[EventColumns] = []
    for lane in lineup.lanes:
        inputs = lane.answerer.model.inputs
        same = (events for events in (*known, *made) if events.inputs == inputs)
        made.append(next(same, None) or EventColumns(event, inputs))
    stable = _fields(made[0])
    lacking = {
        lane.version: ", ".join(sorted(name for name, _ in missing))
        for lane, events in zip(lineup.lanes, made, strict=True)
        if (missing := _fields(events) - stable)
    }
    return InForce(lineup, tuple(made), tuple(lacking.items()))


def _fields(events: EventColumns) -> set[tuple[str, int]]:
    return {(position.field, position.width) for position in events.positions}
