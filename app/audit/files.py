"""Rows ↔ Parquet files in which a key is found without reading the others.

Rows are sorted by key and then offset, so each key is in one row group of a file, two at most, and the groups' lowest
and highest keys, which Parquet keeps beside them, say in which. A Bloom filter would save that one group; for a file
of 500,000 rows it takes 600 kB, more than the column of keys of a group.
"""

import io

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.audit.objects import TrailObjects
from app.audit.policy import KEY
from app.audit.rows import OFFSET
from app.audit.trail import TrailFile
from app.errors import AuditBroken

GROUP_ROWS = 16_384  # the column of keys of a group is read for each question: 100 to 500 kB
COMPRESSION = "zstd"
# Arrow's own threads would call back into Python, and one that still does when the program ends aborts it.
_THREADS = False


def encode(batches: list[pa.RecordBatch]) -> bytes:
    """One file of these rows; the same bytes whenever the rows are the same."""
    table = pa.Table.from_batches(batches)
    by_key = table.take(pc.sort_indices(table, sort_keys=[(KEY, "ascending"), (OFFSET, "ascending")]))
    names = by_key.schema.names
    out = pa.BufferOutputStream()
    pq.write_table(
        by_key,
        out,
        row_group_size=GROUP_ROWS,
        compression=COMPRESSION,
        sorting_columns=[pq.SortingColumn(names.index(KEY)), pq.SortingColumn(names.index(OFFSET))],
    )
    return bytes(out.getvalue())


def rows_with_key(objects: TrailObjects, file: TrailFile, key: bytes) -> pa.Table | None:
    """The file's rows with this key; None if there are none, or the file has been deleted meanwhile.

    Reads the footer, the keys of the row groups that may have it, and of those that do the rest.
    Raises AuditBroken if it is no Parquet file.
    """
    try:
        parts = _Parts(objects, file)
        parquet = pq.ParquetFile(pa.PythonFile(parts, mode="r"), pre_buffer=False)
        found = []
        for group in _groups_with(parquet.metadata, key):
            keys = parquet.read_row_group(group, columns=[KEY], use_threads=_THREADS).column(KEY)
            rows = pc.indices_nonzero(pc.equal(keys, pa.scalar(key, keys.type)))
            if len(rows):
                parts.fetch(*_span(parquet.metadata.row_group(group)))
                found.append(parquet.read_row_group(group, use_threads=_THREADS).take(rows))
    except FileNotFoundError:
        return None
    except (pa.ArrowException, KeyError, TypeError, OSError, EOFError) as exc:
        reason = str(exc).partition("\n")[0]
        raise AuditBroken(f"{objects.url}/{file.path} is not a file of an audit trail: {reason}") from exc
    return pa.concat_tables(found) if found else None


def _groups_with(metadata: pq.FileMetaData, key: bytes) -> list[int]:
    column = metadata.schema.names.index(KEY) if KEY in metadata.schema.names else -1
    if column < 0:
        raise KeyError(f"it has no column {KEY}")
    groups = []
    for group in range(metadata.num_row_groups):
        known = metadata.row_group(group).column(column).statistics
        # keys of several kilobytes are not kept in the statistics
        if known is None or not known.has_min_max or known.min <= key <= known.max:
            groups.append(group)
    return groups


def _span(group: pq.RowGroupMetaData) -> tuple[int, int]:
    """Where the row group is in its file: (start, size)."""
    columns = [group.column(number) for number in range(group.num_columns)]
    starts = [
        min(column.dictionary_page_offset or column.data_page_offset, column.data_page_offset) for column in columns
    ]
    stops = [start + column.total_compressed_size for start, column in zip(starts, columns, strict=True)]
    return min(starts), max(stops) - min(starts)


class _Parts(io.RawIOBase):
    """A file of which only what is asked for is read: its end first, where Parquet has its table of contents."""

    def __init__(self, objects: TrailObjects, file: TrailFile) -> None:
        super().__init__()
        self._objects, self._path, self._size = objects, file.path, file.size
        self._at = 0
        self._ahead, self._ahead_at = b"", 0

    def fetch(self, start: int, size: int) -> None:
        """Have these bytes ready: one request instead of one for each column."""
        self._ahead, self._ahead_at = self._part(start, size), start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        wanted = left if size < 0 else min(size, left)
        if not wanted:
            return b""
        ahead = self._at - self._ahead_at
        if ahead >= 0 and ahead + wanted <= len(self._ahead):
            part = self._ahead[ahead : ahead + wanted]
        else:
            part = self._part(self._at, wanted)
        self._at += len(part)
        return part

    def _part(self, start: int, size: int) -> bytes:
        part = self._objects.part(self._path, start, size)
        if part is None:
            raise FileNotFoundError(self._path)
        return part
