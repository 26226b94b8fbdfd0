"""Bytes that are no text become one control character each; nothing else changes, however it is read."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.scoring.utf8_guard import Utf8Guard


def read(content, sizes):
    """Everything, read in blocks of these sizes in turn."""
    guard = Utf8Guard(pa.BufferReader(content))
    found, turn = b"", 0
    while block := guard.read(sizes[turn % len(sizes)]):
        assert len(block) <= max(4, sizes[turn % len(sizes)] % 2**31)
        found, turn = found + block, turn + 1
    return found, guard.replaced


pieces = st.lists(st.one_of(st.binary(max_size=5), st.text(max_size=5).map(str.encode)), max_size=8).map(b"".join)
sizes = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@given(st.text(max_size=40), sizes)
def test_text_is_as_it_was(text, blocks):
    assert read(text.encode(), blocks) == (text.encode(), False)


@given(pieces, sizes)
def test_how_it_is_read_changes_nothing(content, blocks):
    assert read(content, blocks) == read(content, [-1])


@given(pieces)
def test_what_comes_out_is_text_of_the_same_length(content):
    found, replaced = read(content, [7])
    assert len(found) == len(content)
    found.decode()
    assert replaced == (found != content)


@pytest.mark.parametrize("cut", ["é", "€", "😀"])
def test_a_character_at_a_seam_is_one(cut):
    content = ("x" * 5 + cut + "y").encode()
    assert read(content, [6]) == (content, False)


def test_a_character_that_never_ends_is_replaced():
    assert read("é".encode()[:1], [8]) == (b"\x1a", True)
