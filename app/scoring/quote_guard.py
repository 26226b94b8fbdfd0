"""Quotes of a CSV file that are opened and never closed: they would swallow every row that comes after.

By default a row ends with its line, so an open quote costs the one line that has it. Where cells may hold line breaks
nobody can tell such a quote from a long cell before the end of the file; then the whole file is refused there.
"""

import io
import re
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_MARK = re.compile("\ue001open-quote-([0-9]+)\ue001")
QUOTE, LINE_FEED, CARRIAGE_RETURN = b'"', 10, 13


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class QuoteGuard(io.RawIOBase):
    """A file, read once from its beginning, in which each line with an open quote is a mark: a row of too few cells.

    cells: of a row; a mark of a file with one column has two. longest: bytes of a line; longer ones pass as they are.
    Raises ValueError if the header, the first line, is one of them.
    """

    def __init__(self, file: _Readable, delimiter: str, cells: int, longest: int) -> None:
        super().__init__()
        self._file, self._longest = file, longest
        self._tail = delimiter if cells == 1 else ""
        self._open = _open_line(delimiter)
        self._rest = self._ready = b""
        self._ended, self._header = False, True
        self._lines: list[bytes] = []

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, none at the end only."""
        while (size < 0 or not self._ready) and not self._ended:
            self._fill(size)
        end = len(self._ready) if size < 0 else size
        given, self._ready = self._ready[:end], self._ready[end:]
        return given

    def line_of(self, text: str) -> str | None:
        """The line in place of which this text was given, None if it is no mark."""
        found = _MARK.match(text)
        number = int(found[1]) if found else len(self._lines)
        return self._lines[number].decode(errors="replace") if number < len(self._lines) else None

    def _fill(self, size: int) -> None:
        block = self._file.read(size)
        self._ended = not block or size < 0
        whole, self._rest = self._rest + block, b""
        if not self._ended:
            end = max(whole.rfind(b"\n"), whole.rfind(b"\r")) + 1
            if not end and len(whole) > self._longest:
                end = len(whole)
            whole, self._rest = whole[:end], whole[end:]
        if whole:
            self._ready += self._marked(whole)
            self._header = False

    def _marked(self, block: bytes) -> bytes:
        if QUOTE not in block:
            return block
        octets = np.frombuffer(block, np.uint8)
        starts = np.flatnonzero((octets == LINE_FEED) | (octets == CARRIAGE_RETURN)) + 1
        offsets = np.unique(np.concatenate([[0], starts, [len(block)]])).astype(np.int64)
        lines = pa.Array.from_buffers(
            pa.large_binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(block)]
        )
        quoted = pc.indices_nonzero(pc.match_substring(lines, QUOTE)).to_numpy()
        opened = pc.match_substring_regex(lines.take(pa.array(quoted)), self._open).to_numpy(zero_copy_only=False)
        bad = quoted[opened.astype(np.bool_)].tolist()
        if not bad:
            return block
        if self._header and bad[0] == 0:
            raise ValueError("the header has a quote that is not closed")
        parts, at = [], 0
        for line in bad:
            start, end = int(offsets[line]), int(offsets[line + 1])
            parts += [block[at:start], f"\ue001open-quote-{len(self._lines)}\ue001{self._tail}\n".encode()]
            self._lines.append(block[start:end].rstrip(b"\r\n"))
            at = end
        return b"".join([*parts, block[at:]])


class QuoteParity(io.RawIOBase):
    """A file, read once from its beginning. Raises ValueError at its end if it has an odd number of quotes."""

    def __init__(self, file: _Readable) -> None:
        super().__init__()
        self._file, self._quotes = file, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, none at the end only."""
        block = self._file.read(size)
        self._quotes += block.count(QUOTE)
        if (not block or size < 0) and self._quotes % 2:
            raise ValueError("a quote is opened and never closed: rows after it may be inside of it")
        return block


def _open_line(delimiter: str) -> str:
    """What matches a line that ends within quotes. As Arrow has it, only a cell that begins with a quote has any."""
    other = f"[^{re.escape(delimiter)}]"
    first = f'[^"{re.escape(delimiter)}]'
    closed = f'"(?:[^"]|"")*"(?:{first}{other}*)?'
    return f'^(?:(?:{closed}|{first}{other}*|){re.escape(delimiter)})*"(?:[^"]|"")*$'
