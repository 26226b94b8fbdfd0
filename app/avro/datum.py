"""One datum, byte by byte: the judge that says why a record cannot be decoded.

Stricter than both codecs, which accept bad UTF-8, negative indexes, trailing bytes or integers that do not
fit: it walks the datum by its schema (Avro 1.12 specification, "Binary Encoding") and builds nothing. Slow,
so it sees only the neighbourhood of a record that failed, and records too few or too odd for columns.
"""

from collections.abc import Callable
from typing import Any

from app.avro.schemas import Node
from app.errors import DecodeFailed, Reason

_FIXED_SIZES = {"float": 4, "double": 8}
_RANGES = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_MAX_VARINT_BYTES = 10
_64_BITS = 2**64 - 1
# Its opposite in 64 bits is itself, so both codecs read a block of that count as one of no items; whoever wrote it,
# a verdict that depended on who looks at the datum would be worse.
_NO_OPPOSITE = -(2**63)


def check_datum(record: dict[str, Any], value: bytes, start: int) -> list[int]:
    """Where each field of the record ends, if value[start:] is exactly one datum of it.

    Raises DecodeFailed (truncated, trailing_bytes, bad_utf8, bad_index, out_of_range), naming the field.
    """
    walker = _Walker(value, start)
    ends = []
    for field in record["fields"]:
        walker.walk(field["type"], field["name"])
        ends.append(walker.at)
    if walker.at < len(value):
        msg = f"{len(value) - walker.at} bytes follow the end of the datum"
        raise DecodeFailed(Reason.TRAILING_BYTES, msg)
    return ends


class _Walker:
    def __init__(self, value: bytes, at: int) -> None:
        self._value = value
        self.at = at

    def walk(self, node: Node, path: str) -> None:  # noqa: PLR0912 - one case per Avro type
        if isinstance(node, list):
            self.walk(node[self._index(len(node), "union branch", path)], path)
            return
        match node["type"]:
            case "null":
                pass
            case "boolean":
                byte = self._value[self._take(1, path)]
                if byte > 1:
                    raise DecodeFailed(Reason.OUT_OF_RANGE, f"{path}: boolean byte 0x{byte:02x}")
            case "int" | "long" as kind:
                self._number(kind, path)
            case "float" | "double" as kind:
                self._take(_FIXED_SIZES[kind], path)
            case "fixed":
                self._take(node["size"], path)
            case "bytes":
                self._take(self._length(path), path)
            case "string":
                self._string(path)
            case "enum":
                self._index(len(node["symbols"]), "enum", path)
            case "array":
                self._blocks(path, lambda: self.walk(node["items"], f"{path}[]"))
            case "map":
                self._blocks(path, lambda: self._entry(node["values"], path))
            case "record":
                for field in node["fields"]:
                    self.walk(field["type"], f"{path}.{field['name']}")

    def _take(self, size: int, path: str) -> int:
        start = self.at
        if size > len(self._value) - start:
            msg = f"{path}: needs {size} bytes at byte {start}, {len(self._value) - start} are left"
            raise DecodeFailed(Reason.TRUNCATED, msg)
        self.at = start + size
        return start

    def _number(self, kind: str, path: str) -> int:
        raw = shift = 0
        for _ in range(_MAX_VARINT_BYTES):
            byte = self._value[self._take(1, path)]
            raw |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        else:
            raise DecodeFailed(Reason.OUT_OF_RANGE, f"{path}: a varint of more than {_MAX_VARINT_BYTES} bytes")
        raw &= _64_BITS  # as every implementation does: what the tenth byte has beyond 64 bits is lost
        number = (raw >> 1) ^ -(raw & 1)
        low, high = _RANGES[kind]
        if not low <= number <= high:
            raise DecodeFailed(Reason.OUT_OF_RANGE, f"{path}: {number} does not fit {kind}")
        return number

    def _index(self, count: int, what: str, path: str) -> int:
        index = self._number("long", path)
        if not 0 <= index < count:
            raise DecodeFailed(Reason.BAD_INDEX, f"{path}: {what} index {index}, allowed 0 to {count - 1}")
        return index

    def _length(self, path: str) -> int:
        length = self._number("long", path)
        if length < 0:
            raise DecodeFailed(Reason.TRUNCATED, f"{path}: negative length {length}")
        return length

    def _string(self, path: str) -> None:
        length = self._length(path)
        start = self._take(length, path)
        try:
            self._value[start : start + length].decode("utf-8")
        except UnicodeDecodeError as exc:
            raise DecodeFailed(Reason.BAD_UTF8, f"{path}: {exc.reason} at byte {exc.start}") from exc

    def _entry(self, values: Node, path: str) -> None:
        self._string(path)
        self.walk(values, f"{path}{{}}")

    def _blocks(self, path: str, item: Callable[[], None]) -> None:
        """Array and map blocks: a negative count is followed by the block's size in bytes, which need not be true."""
        while count := self._number("long", path):
            if count < 0:
                self._number("long", path)
            if count == _NO_OPPOSITE:
                continue
            for _ in range(abs(count)):
                item()
