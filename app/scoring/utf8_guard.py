"""Bytes that are no text, told in time: the CSV library loses a whole file to one of them at the wrong place."""

import io
import re

import pyarrow as pa

SUBSTITUTE = "\x1a"  # what this control character is for; one byte, so that nothing moves
_ESCAPED = re.compile("[\udc80-\udcff]")  # how Python spells a byte that is no UTF-8
_LONGEST = 4  # bytes of a character


class Utf8Guard(io.RawIOBase):
    """A file, read once from its beginning, in which each byte that is no UTF-8 is SUBSTITUTE.

    replaced: whether there was one so far.
    """

    def __init__(self, file: pa.NativeFile) -> None:
        super().__init__()
        self._file = file
        self._begun = b""  # of a character that the next bytes end
        self.replaced = False

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, none at the end only."""
        if size < 0:
            block, self._begun = self._begun + self._file.read(), b""
            return self._mended(block)
        # room for one character, or nothing would be given where there is something
        read = self._file.read(max(size, _LONGEST) - len(self._begun))
        block = self._begun + read
        whole = _end_of_characters(block) if read else len(block)
        self._begun = block[whole:]
        return self._mended(block[:whole]) if whole or not block else self.read(size)

    def _mended(self, block: bytes) -> bytes:
        try:
            block.decode()
        except UnicodeDecodeError:
            self.replaced = True
            return _ESCAPED.sub(SUBSTITUTE, block.decode(errors="surrogateescape")).encode()
        return block


def _end_of_characters(block: bytes) -> int:
    """Where a last character begins that more bytes could complete, else the end."""
    for back in range(1, min(_LONGEST, len(block) + 1)):
        byte = block[-back]
        if byte & 0xC0 == 0x80:  # not the first of its character
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return len(block) - back if length > back else len(block)
    return len(block)
