"""Where the files of a trail are, and why each record is in exactly one of them.

    pipeline=churn/date=2026-11-21/churn.predictions-3-000…1200-000…1711.parquet    rows of offsets 1200 to 1711
    pipeline=churn/_claims/churn.predictions/3/000…1200.json                        who may write them
    features=churn/date=2026-11-21/churn.events-0-000…0000-000…0511.parquet         of its events, if they are kept

A partition's *claims* tile its offsets without gap or overlap: the first one begins at 0, each other one where the
one before ends. A claim names the one file that holds the committed records of its offsets. It is created under the
offset it begins at, and only if there is none there: of two writers that want to go on from the same place, one does,
whatever either of them believes about the consumer group. The rules, in the order in which a writer follows them:

1. It reads from where the last claim ends; the group's committed offset is never asked.
2. If the file of the last claim is not there, its writer died, or is slow. It reads the claim's offsets again and
   creates the file under the name that the claim gives: whoever comes second finds it there, with the same rows.
3. Before a new file it creates a claim that begins where the last one ends. If there is one already, another writer was
   there first: it forgets what it has read, and begins with 1.
4. It creates the file. Only then does it claim again, or commit an offset to the group.

So a file never appears that no claim names, and no two claims share an offset. Files appear whole or not at all (an
upload, or a link to a finished draft). Folders that begin with an underscore are passed over by whoever reads the
trail as a Hive-partitioned data set.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

import orjson

from app.audit.objects import TrailObjects
from app.errors import AuditBroken
from app.records import TopicPartition

EPOCH = date(1970, 1, 1)
_DIGITS = 20  # of an offset in a name: enough for 2**63, so that names sort as offsets do
_CLAIMS = "_claims"
PREDICTIONS, FEATURES = "pipeline", "features"  # of which a trail is: the first word of its folder
_FILE = re.compile(r"(?:pipeline|features)=[^/]+/date=(\d{4}-\d\d-\d\d)/([^/]+)-(\d+)-(\d{20})-(\d{20})\.parquet")


@dataclass(frozen=True, slots=True)
class Claim:
    """The offsets first <= offset < next_offset of a partition belong in the file at `path`."""

    first: int
    next_offset: int
    path: str


@dataclass(frozen=True, slots=True)
class TrailFile:
    """A file as its name tells of it: records first_offset to last_offset of `source`.

    All are of `day` or before, but those whose clock was ahead of the writer's.
    """

    path: str
    size: int
    day: date
    source: TopicPartition
    first_offset: int
    last_offset: int


def day_of(days: int) -> date:
    """The date so many days after the epoch."""
    return EPOCH + timedelta(days=days)


def file_path(folder: str, source: TopicPartition, day: date, first_offset: int, last_offset: int) -> str:
    """Where the file of these records belongs."""
    name = f"{source.topic}-{source.partition}-{first_offset:0{_DIGITS}}-{last_offset:0{_DIGITS}}.parquet"
    return f"{folder}/date={day.isoformat()}/{name}"


class Trail:
    """One pipeline's files and claims, of its predictions or of its events' features. Raises what `Objects` does.

    folder: where all of them are, in the store.
    """

    def __init__(self, objects: TrailObjects, pipeline: str, kind: str = PREDICTIONS) -> None:
        self.objects, self.pipeline, self.kind = objects, pipeline, kind
        self.folder = f"{kind}={pipeline}"

    def last_claim(self, source: TopicPartition) -> Claim | None:
        """Where the next one begins. Raises AuditBroken if it cannot be read."""
        folder = self._claims_of(source)
        names = [item.path for item in self.objects.sized(folder)]
        if not names:
            return None
        path = max(names)
        found = self.objects.read(path)
        claim = _read_claim(found.content if found else b"")
        if claim is None or path != self._claim_path(source, claim.first) or not self._is_of(source, claim):
            raise AuditBroken(f"{self.objects.url}/{path} is not a claim of this trail; nothing can follow it")
        return claim

    def claim(self, source: TopicPartition, claim: Claim) -> bool:
        """Whether the claim is ours to fill now; False if there is one already that begins there."""
        content = orjson.dumps({"first": claim.first, "next_offset": claim.next_offset, "path": claim.path})
        return self.objects.create(self._claim_path(source, claim.first), content)

    def is_filled(self, claim: Claim) -> bool:
        """Whether its file is there."""
        return self.objects.has(claim.path)

    def fill(self, claim: Claim, content: bytes) -> bool:
        """Create its file; False if it is there already."""
        return self.objects.create(claim.path, content)

    def files(self, since: date | None = None) -> list[TrailFile]:
        """Those of this day and later ones, in order of their paths: by day, then partition, then offset."""
        found = [
            TrailFile(item.path, item.size, *parsed)
            for item in self.objects.sized(self.folder)
            if (parsed := parsed_path(item.path)) is not None
        ]
        return sorted((file for file in found if since is None or file.day >= since), key=lambda file: file.path)

    def forget(self, files: Iterable[TrailFile]) -> int:
        """Delete these files, and the claims before the last of each partition that named them; returns how many files.

        The last claim stays whatever becomes of its file, since the next one begins where it ends.
        """
        gone: dict[TopicPartition, int] = {}
        paths = []
        for file in files:
            paths.append(file.path)
            gone[file.source] = max(gone.get(file.source, 0), file.first_offset)
        self.objects.delete(paths)
        for source, first_offset in gone.items():
            claims = sorted(item.path for item in self.objects.sized(self._claims_of(source)))
            last = self._claim_path(source, first_offset)
            self.objects.delete([path for path in claims[:-1] if path <= last])
        return len(paths)

    def _is_of(self, source: TopicPartition, claim: Claim) -> bool:
        parsed = parsed_path(claim.path)
        return (
            parsed is not None
            and parsed[1] == source
            and claim.path.startswith(f"{self.folder}/")
            and claim.first <= parsed[2] <= parsed[3] == claim.next_offset - 1
        )

    def _claims_of(self, source: TopicPartition) -> str:
        return f"{self.folder}/{_CLAIMS}/{source.topic}/{source.partition}"

    def _claim_path(self, source: TopicPartition, first: int) -> str:
        return f"{self._claims_of(source)}/{first:0{_DIGITS}}.json"


def _read_claim(content: bytes) -> Claim | None:
    try:
        claim = Claim(**orjson.loads(content))
    except (ValueError, TypeError):
        return None
    offsets = (claim.first, claim.next_offset)
    return claim if all(type(offset) is int for offset in offsets) and isinstance(claim.path, str) else None


def parsed_path(path: str) -> tuple[date, TopicPartition, int, int] | None:
    """Day, source, first and last offset; None if no file of ours has such a path."""
    match = _FILE.fullmatch(path)
    if match is None:
        return None
    day, topic, partition, first, last = match.groups()
    try:
        return date.fromisoformat(day), TopicPartition(topic, int(partition)), int(first), int(last)
    except ValueError:
        return None
