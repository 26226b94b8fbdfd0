"""The features of answers: what the event had from which a prediction was made, joined by where that event was.

Events are kept as predictions are, in a trail beside theirs. A prediction names its event's record, and the names of
files say which one has that record: so each is looked for in one file.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from app.audit.files import rows_with_key
from app.audit.query import READERS, Answer, plain_values
from app.audit.rows import OFFSET, PREFIX
from app.audit.trail import Trail, TrailFile
from app.records import TopicPartition

NAME = "features"
PROVENANCE = ("source_topic", "source_partition", "source_offset")

Place = tuple[TopicPartition, int]


def with_features(found: Sequence[Answer], trails: Mapping[str, Trail], key: bytes) -> list[Answer]:
    """The answers, each with the fields of its event under `features`, or None: not there yet, or deleted.

    trails: of features, by pipeline. key: as the trail keeps it.
    """
    wanted = [(answer, _place(answer)) for answer in found]
    features: dict[tuple[str, Place], Answer] = {}
    for pipeline, trail in trails.items():
        places = {place for answer, place in wanted if place is not None and answer["pipeline"] == pipeline}
        for place, fields in _features_at(trail, places, key).items():
            features[pipeline, place] = fields
    return [
        answer | {NAME: None if place is None else features.get((str(answer["pipeline"]), place))}
        for answer, place in wanted
    ]


def _place(answer: Answer) -> Place | None:
    """Where the event was; None of a record that is no prediction, or whose provenance is masked."""
    topic, partition, offset = (answer.get(name) for name in PROVENANCE)
    if isinstance(topic, str) and isinstance(partition, int) and isinstance(offset, int):
        return TopicPartition(topic, partition), offset
    return None


def _features_at(trail: Trail, places: set[Place], key: bytes) -> Mapping[Place, Answer]:
    if not places:
        return {}
    chosen: list[tuple[TrailFile, list[int]]] = []
    for file in trail.files():
        offsets = [
            offset
            for source, offset in places
            if source == file.source and file.first_offset <= offset <= file.last_offset
        ]
        if offsets:
            chosen.append((file, offsets))

    def read(one: tuple[TrailFile, list[int]]) -> list[tuple[Place, Answer]]:
        return _features_in(trail, *one, key)

    with ThreadPoolExecutor(READERS) as readers:
        return dict(place for some in readers.map(read, chosen) for place in some)


def _features_in(trail: Trail, file: TrailFile, offsets: Sequence[int], key: bytes) -> list[tuple[Place, Answer]]:
    rows = rows_with_key(trail.objects, file, key)
    if rows is None:
        return []
    rows = rows.filter(pc.is_in(rows.column(OFFSET), pa.array(offsets, pa.int64())))
    found = rows.column(OFFSET).to_pylist()
    names = [name for name in rows.schema.names if not name.startswith(PREFIX)]
    columns = {name: plain_values(rows.column(name)) for name in names}
    return [
        ((file.source, offset), {name: values[row] for name, values in columns.items()})
        for row, offset in enumerate(found)
    ]
