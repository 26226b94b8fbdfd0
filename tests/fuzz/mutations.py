"""What hostile producers and broken disks do to a datum."""

from collections.abc import Callable
from random import Random

from tests.unit.avro.datums import varint

# lengths, block counts, union and enum indexes at the edges of what an implementation may hold
VARINTS = tuple(
    varint(number)
    for number in (0, 1, 2, 3, -1, -2, 63, 64, -64, -65, 127, 128, 1000, 2**20, 2**31 - 1, 2**31, -(2**31),
                   -(2**31) - 1, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63), 2**64, 2**69 - 1)
)  # fmt: skip
OCTETS = (
    b"\x00", b"\x01", b"\x02", b"\x7f", b"\x80", b"\xfe", b"\xff", b"\xff" * 10, b"\x80" * 9 + b"\x01", b"\x80" * 40,
    b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc3\x28", b"\xe2\x82",  # no UTF-8
    b"\x00\x00\x80\x7f", b"\x01\x00\x80\x7f", b"\x01\x00\x00\x00\x00\x00\xf0\x7f",  # infinity and signalling NaNs
    b"\xc3\x01", b"\x00\x00\x00\x00\x01", b"Obj\x01", b"{}", bytes(64),
)  # fmt: skip
LONG_RUNS = (1_000, 10_000, 100_000)

Body = bytearray
Edit = Callable[[Random, Body, bytes], None]


def mutated(rng: Random, value: bytes, header_size: int, other: bytes) -> bytes:
    """`value` with one to four edits behind its header, or now and then in its header; `other`: what to splice."""
    if rng.random() < 0.05:
        return _with_bad_header(rng, value, header_size, other)
    body = Body(value[header_size:])
    for _ in range(rng.choice([1, 1, 2, 4])):
        rng.choice(_EDITS)(rng, body, other[header_size:])
    return value[:header_size] + bytes(body)


def _with_bad_header(rng: Random, value: bytes, header_size: int, other: bytes) -> bytes:
    match rng.randrange(6):
        case 0:
            return value[: rng.randint(0, header_size)]
        case 1:
            return rng.randbytes(rng.randint(0, 40))
        case 2:
            return other[:header_size] + value[header_size:]  # another writer's, perhaps
        case 3:
            return b"\xc3\x81\x00" + value[2:]  # -98 as well, in three bytes
        case 4:
            return value[header_size:]
        case _:
            at = rng.randrange(header_size)
            return value[:at] + bytes([value[at] ^ (1 << rng.randrange(8))]) + value[at + 1 :]


def _at(rng: Random, body: Body) -> int:
    return rng.randint(0, len(body))


def _flip(rng: Random, body: Body, other: bytes) -> None:
    if body:
        at = rng.randrange(len(body))
        body[at] ^= 1 << rng.randrange(8)


def _cut(rng: Random, body: Body, other: bytes) -> None:
    del body[_at(rng, body) :]


def _delete(rng: Random, body: Body, other: bytes) -> None:
    at = _at(rng, body)
    del body[at : at + rng.randint(1, 9)]


def _extend(rng: Random, body: Body, other: bytes) -> None:
    body += rng.choice([rng.randbytes(rng.randint(1, 12)), bytes(8), other, rng.choice(OCTETS)])


def _splice(rng: Random, body: Body, other: bytes) -> None:
    start = rng.randint(0, len(other))
    body[_at(rng, body) :] = other[start:]


def _set_varint(rng: Random, body: Body, other: bytes) -> None:
    at = _at(rng, body)
    body[at : at + rng.choice([0, 1, 1, 2])] = rng.choice(VARINTS)


def _set_octets(rng: Random, body: Body, other: bytes) -> None:
    at = _at(rng, body)
    octets = rng.choice(OCTETS)
    body[at : at + rng.choice([0, 1, len(octets)])] = octets


def _repeat(rng: Random, body: Body, other: bytes) -> None:
    at = _at(rng, body)
    body[at:at] = body[at : at + rng.randint(1, 16)] * rng.choice([1, 2, 50])


def _randomise(rng: Random, body: Body, other: bytes) -> None:
    body[_at(rng, body) :] = rng.randbytes(rng.randint(0, 40))


def _nest(rng: Random, body: Body, other: bytes) -> None:
    """The same few bytes again and again: as deep, or as many, as the schema lets it be."""
    length = rng.choice(LONG_RUNS) if rng.random() < 0.003 else rng.randint(1, 120)
    at = _at(rng, body)
    body[at:at] = (rng.choice([*VARINTS[:7], b"\x02\x02", b"\x01\x02", b"\x02\x00"]) * length)[:length]


def _bomb(rng: Random, body: Body, other: bytes) -> None:
    """A block that claims as many items as there are bytes."""
    if rng.random() < 0.997:
        return _set_varint(rng, body, other)
    items = rng.choice(LONG_RUNS)
    at = _at(rng, body)
    body[at:] = varint(items) + rng.choice([b"\x00", b"\x01", b"\x02", b"\x02\x00"]) * items + b"\x00"
    return None


_EDITS: tuple[Edit, ...] = (
    _flip, _flip, _cut, _delete, _extend, _splice, _set_varint, _set_varint, _set_octets, _repeat,
    _randomise, _nest, _bomb,
)  # fmt: skip
