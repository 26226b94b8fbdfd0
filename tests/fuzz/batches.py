"""Batches of datums, each from its seed alone: the n-th can be made again without the ones before it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from app.avro.framing import ConfluentFraming, SingleObjectFraming
from tests.fuzz.events import Stream, stream_of
from tests.fuzz.mutations import mutated

KINDS = ("churn", "digit", "columns", "odd")
BATCHES = 24  # of one stream; making its schemas and readers costs as much as some batches
POOL = 120  # valid datums of a stream
# (valid, mutated) datums of a batch: a few poisoned ones among many, half and half, nothing but poisoned ones
MIXTURES = ((250, 1), (250, 4), (60, 60), (0, 1), (0, 256), (0, 256), (0, 512))


@dataclass(frozen=True, slots=True)
class Batch:
    """values[i] was mutated, or is as its writer wrote it."""

    stream: Stream
    values: list[bytes]
    mutated: list[bool]


def batches_of(seed: int, turn: int) -> Iterator[Batch]:
    """BATCHES batches of one stream."""
    rng = Random(f"{seed}/{turn}")
    stream = stream_of(rng, KINDS[turn % len(KINDS)])
    headers = sorted(stream.writers)
    pool = [stream.datum(rng, rng.choice(headers)) for _ in range(POOL)]
    size = stream.framing.size
    for _ in range(BATCHES):
        valid, spoilt = rng.choice(MIXTURES)
        values = [(rng.choice(pool), False) for _ in range(valid)]
        for _ in range(spoilt):
            value = mutated(rng, rng.choice(pool), size, rng.choice(pool))
            values.append((value, True))
        rng.shuffle(values)
        yield Batch(stream, [value for value, _ in values], [bad for _, bad in values])


def batch_of(seed: int, turn: int, number: int) -> Batch:
    """The same batch as when it was met first."""
    return next(batch for i, batch in enumerate(batches_of(seed, turn)) if i == number)


def write(batch: Batch, path: Path) -> None:
    """Everything that is needed to check the batch again."""
    stream = batch.stream
    content = {
        "framing": type(stream.framing).__name__,
        "reader": stream.reader,
        "writers": {header.hex(): text for header, text in stream.writers.items()},
        "values": [value.hex() for value in batch.values],
        "mutated": batch.mutated,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read(path: Path) -> Batch:
    """What `write` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    framings = {framing.__name__: framing for framing in (ConfluentFraming, SingleObjectFraming)}
    writers = {bytes.fromhex(header): text for header, text in content["writers"].items()}
    return Batch(
        Stream(framings[content["framing"]](), content["reader"], writers),
        [bytes.fromhex(value) for value in content["values"]],
        content["mutated"],
    )
