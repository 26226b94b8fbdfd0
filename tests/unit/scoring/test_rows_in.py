"""Files of rows: whatever is in them, there are rows, rejected rows, or an error that names the file."""

import io
import random

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadSettings, InputDamaged, SchemaIncompatible
from app.scoring import rows_in
from app.scoring.rows_in import CsvPolicy, CsvRows, ParquetRows, check_columns


def csv(content, policy=CsvPolicy()):  # noqa: B008 - frozen
    content = content.encode() if isinstance(content, str) else content
    return CsvRows("rows.csv", lambda: pa.BufferReader(content), policy)


def parquet(table, categories=(), **how):
    sink = io.BytesIO()
    pa.parquet.write_table(table, sink, **how)
    return ParquetRows("rows.parquet", lambda: pa.BufferReader(sink.getvalue()), categories)


def read(rows, columns, first_row=0):
    """(rows as dicts, what could not be read)."""
    pieces = list(rows.pieces(columns, first_row))
    assert pieces
    row = pieces[0].first_row
    for piece in pieces:
        assert piece.first_row == row
        row += piece.table.num_rows
    return (
        [row for piece in pieces for row in piece.table.to_pylist()],
        [bad for piece in pieces for bad in piece.unreadable],
    )


def test_a_csv_cell_is_text_and_an_empty_one_has_no_value():
    rows, bad = read(csv('a,b,c\n1,"x, y",\n2.50,,""\n'), ["c", "a", "b"])
    assert rows == [{"c": None, "a": "1", "b": "x, y"}, {"c": "", "a": "2.50", "b": None}]
    assert bad == []


def test_what_else_means_no_value_is_for_the_user_to_say():
    content = "a,b\nNA,NULL\n"
    assert read(csv(content), ["a", "b"])[0] == [{"a": "NA", "b": "NULL"}]
    assert read(csv(content, CsvPolicy(missing=("NULL",))), ["a", "b"])[0] == [{"a": "NA", "b": None}]


def test_another_delimiter_can_be_named():
    assert read(csv("a;b\n1;2\n", CsvPolicy(delimiter=";")), ["b"])[0] == [{"b": "2"}]


def test_a_line_with_too_few_or_too_many_cells_is_told_and_left_out():
    rows, bad = read(csv("a,b\n1,2\n3\n4,5,6\n7,8\n"), ["a"])
    assert rows == [{"a": "1"}, {"a": "7"}]
    assert [(item.row, item.line) for item in bad] == [(None, "3"), (None, "4,5,6")]
    assert bad[0].message == "line 3 has 1 cells, the header 2"


def test_a_csv_of_bad_lines_only_has_no_rows_and_tells_each():
    rows, bad = read(csv("a,b\n1\n2\n"), ["a"])
    assert rows == []
    assert len(bad) == 2


def test_a_cell_that_is_no_text_rejects_its_row():
    rows, bad = read(csv(b"a,b\n1,x\n\xff,y\n"), ["a", "b"])
    assert rows == [{"a": "1", "b": "x"}, {"a": "\x1a", "b": "y"}]
    assert [(item.row, item.message) for item in bad] == [(1, "a is not UTF-8")]


def test_a_line_that_is_neither_text_nor_a_row_is_told_and_left_out():
    rows, (bad,) = read(csv(b"a,b\n1,2\n\xff\xfe\n3,4\n"), ["a"])
    assert rows == [{"a": "1"}, {"a": "3"}]
    assert bad.line == "\x1a\x1a"


def test_a_long_bad_line_is_kept_in_part():
    _, (bad,) = read(csv("a,b\n" + "x" * 50_000 + "\n"), ["a"])
    assert len(bad.line) == rows_in.LONGEST_LINE


def test_a_quote_that_is_not_closed_costs_its_line_and_no_other():
    content = "a,b\n" + "1,2\n" * 5 + '"3,4\n' + "5,6\n" * 200_000
    rows, (bad,) = read(csv(content), ["a", "b"])
    assert rows == [{"a": "1", "b": "2"}] * 5 + [{"a": "5", "b": "6"}] * 200_000
    assert (bad.row, bad.line) == (None, '"3,4')
    assert bad.message == "line 7 has a quote that is not closed"


@pytest.mark.parametrize(
    ("line", "opened"),
    [
        ('"x"', False),
        ('"x"y', False),
        ('5" pipe', False),
        ('"a ""b"" c"', False),
        ('"a"""', False),
        ('""', False),
        ('"', True),
        ('"x""', True),
        ('"x"",', True),
        ('"a"",""', True),
    ],
)
@pytest.mark.parametrize("other", ["", "1", '5" pipe', '"q,q"'])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_which_quotes_are_open_at_the_end_of_a_line_is_as_the_reader_has_it(line, opened, other, end):
    rows, bad = read(csv(f"a,b{end}1,2{end}{other},{line}{end}3,4{end}"), ["a"])
    assert [row["a"] for row in rows][:: len(rows) - 1] == ["1", "3"]
    assert [found.line for found in bad] == ([f"{other},{line}"] if opened else [])


@pytest.mark.parametrize("block", [300, 1_000, 4_000])
def test_an_open_quote_is_found_wherever_blocks_end(block, monkeypatch):
    monkeypatch.setattr(rows_in, "CSV_BLOCK_BYTES", block)
    lines = [f'"{number}' if number % 7 == 3 else f"{number}" for number in range(2_000)]
    rows, bad = read(csv("a\n" + "\n".join(lines)), ["a"])
    assert [row["a"] for row in rows] == [line for line in lines if not line.startswith('"')]
    assert [found.line for found in bad] == [line for line in lines if line.startswith('"')]


def test_a_header_with_an_open_quote_is_no_header():
    with pytest.raises(BadSettings, match=r"rows\.csv cannot be read: the header has a quote that is not closed"):
        csv('a,"b\n1,2\n')


def test_where_cells_may_hold_line_breaks_an_open_quote_refuses_the_file():
    with pytest.raises(
        (BadSettings, InputDamaged), match=r"rows\.csv cannot be read: a quote is opened and never closed"
    ):
        read(csv('a,b\n1,2\n"3,4\n5,6\n', CsvPolicy(multiline=True)), ["a"])


def test_line_breaks_within_cells_are_read_if_there_may_be_any():
    content = 'a,b\r\n"1\r\n2","say ""hi"""\r\n3,4'
    rows, bad = read(csv(content), ["a", "b"])
    assert rows == [{"a": '2"', "b": 'say "hi"'}, {"a": "3", "b": "4"}]  # each line is one of its own
    assert [found.line for found in bad] == ['"1']
    rows, bad = read(csv(content, CsvPolicy(multiline=True)), ["a", "b"])
    assert rows == [{"a": "1\r\n2", "b": 'say "hi"'}, {"a": "3", "b": "4"}]
    assert bad == []


@pytest.mark.parametrize("content", ["", "\n", b"\xff\xfe\x00\x00", "a,a\n1,2\n"])
def test_a_csv_without_a_usable_header_is_refused_by_name(content):
    with pytest.raises((BadSettings, SchemaIncompatible), match=r"rows\.csv"):
        check_columns(csv(content), ["a"])


def test_a_header_alone_is_a_file_without_rows():
    assert read(csv("a,b\n"), ["a"]) == ([], [])


def test_a_line_longer_than_a_block_is_an_error_by_name(monkeypatch):
    monkeypatch.setattr(rows_in, "CSV_BLOCK_BYTES", 1_000)
    with pytest.raises((BadSettings, InputDamaged), match=r"rows\.csv cannot be read"):
        read(csv("a,b\n1,2\n" + "x" * 5_000 + ",2\n"), ["a"])


def test_a_byte_order_mark_is_no_part_of_the_first_name():
    assert csv("\ufeffa,b\n1,2\n").schema.names == ["a", "b"]


cell = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@given(st.lists(st.tuples(cell, cell), max_size=60), st.integers(1, 200))
def test_a_csv_gives_back_what_was_written_whatever_the_blocks(cells, block):
    table = pa.table(
        {"a": [a for a, _ in cells], "b": [b for _, b in cells]}, pa.schema([("a", "string"), ("b", "string")])
    )
    sink = io.BytesIO()
    pa.csv.write_csv(table, sink)
    before = rows_in.CSV_BLOCK_BYTES
    rows_in.CSV_BLOCK_BYTES = max(block, 200)
    try:
        rows, bad = read(csv(sink.getvalue(), CsvPolicy(multiline=True)), ["a", "b"])
    finally:
        rows_in.CSV_BLOCK_BYTES = before
    assert rows == table.to_pylist()
    assert bad == []


@given(st.binary(max_size=300))
def test_any_bytes_are_rows_or_an_error_by_name(content):
    for kind in (
        lambda: csv(b"a,b\n" + content),
        lambda: ParquetRows("rows.parquet", lambda: pa.BufferReader(content), []),
    ):
        try:
            read(kind(), ["a"])
        except (BadSettings, InputDamaged) as exc:
            assert "rows." in str(exc)  # noqa: PT017 - no error is as good


def numbers(count, **more):
    return pa.table({"n": list(range(count)), "plan": ["basic"] * count} | more)


def test_parquet_is_read_in_its_own_types_and_categories_as_dictionaries():
    rows = parquet(numbers(3), categories=["plan"])
    (piece,) = rows.pieces(["plan", "n"], 0)
    assert rows.rows == 3
    assert piece.table.schema.names == ["plan", "n"]
    assert pa.types.is_dictionary(piece.table.schema.field("plan").type)
    assert piece.table.schema.field("n").type == pa.int64()


def test_a_category_that_is_no_text_is_read_all_the_same():
    assert read(parquet(numbers(2), categories=["n", "plan"]), ["n"])[0] == [{"n": 0}, {"n": 1}]


@given(st.integers(0, 50), st.integers(1, 20), st.integers(0, 60))
def test_rows_from_one_on_are_read_from_the_row_group_that_has_it(count, group, first):
    rows, _ = read(parquet(numbers(count), row_group_size=group), ["n"], first)
    found = [row["n"] for row in rows]
    assert found == list(range(count))[len(range(count)) - len(found) :]
    if first < count:
        assert found[0] <= first
    assert len(found) <= max(0, count - first) + group


def test_columns_that_are_not_there_or_twice_are_named():
    with pytest.raises(SchemaIncompatible, match=r"rows\.parquet has no column z; it has n, plan"):
        check_columns(parquet(numbers(1)), ["n", "z"])
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
    with pytest.raises(SchemaIncompatible, match="has n more than once"):
        check_columns(parquet(twice), ["n"])


def test_a_truncated_parquet_file_is_refused_by_name():
    sink = io.BytesIO()
    pa.parquet.write_table(numbers(1000), sink)
    content = sink.getvalue()
    for cut in (0, 3, 100, len(content) - 1):
        with pytest.raises(BadSettings, match=r"rows\.parquet cannot be read"):
            ParquetRows("rows.parquet", lambda cut=cut: pa.BufferReader(content[:cut]), [])


def test_damage_within_a_parquet_file_is_found_by_its_checksums_and_told_by_name():
    sink = io.BytesIO()
    pa.parquet.write_table(numbers(5_000), sink, write_page_checksum=True, compression="zstd")
    content = sink.getvalue()
    draw, damaged = random.Random(7), 0
    for _ in range(60):
        at = draw.randrange(4, len(content) // 2)
        broken = content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]
        rows = ParquetRows("rows.parquet", lambda broken=broken: pa.BufferReader(broken), ["plan"])
        try:
            found, _ = read(rows, ["n", "plan"])
            assert found == numbers(5_000).to_pylist()
        except InputDamaged as exc:
            assert "rows.parquet" in str(exc)  # noqa: PT017 - damage that does no harm is fine
            damaged += 1
    assert damaged


def test_a_batch_of_wide_rows_has_fewer_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_in, "BATCH_BYTES", 1 << 20)
    numbers = np.zeros(2_000 * 1_000, np.float32)  # a kilobyte in the file, 8 MB in memory
    column = pa.ListArray.from_arrays(np.arange(2_001, dtype=np.int32) * 1_000, numbers)
    pa.parquet.write_table(pa.table({"pixels": column}), tmp_path / "wide.parquet")
    rows = ParquetRows("wide", lambda: pa.OSFile(str(tmp_path / "wide.parquet")), [])
    pieces = list(rows.pieces(["pixels"], 0))
    assert sum(piece.table.num_rows for piece in pieces) == 2_000
    assert max(piece.table.nbytes for piece in pieces) <= 1 << 20
