"""Files of rows in a bucket: one that is replaced while it is read is refused, and an answer is written once."""

import pytest
from obstore.store import MemoryStore

from app.errors import BadSettings
from app.models.data_bucket import DataBucket, Stored


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def bucket(store):
    store.put("rows.csv", b"0123456789")
    return DataBucket(store, "s3://data")


def opened(bucket):
    [stored] = bucket.stored()
    return bucket.open(stored.name, stored.state)


def test_a_file_is_read_a_range_at_a_time(bucket):
    with opened(bucket) as file:
        assert file.read(4) == b"0123"
        file.seek(8)
        assert file.read() == b"89"


@pytest.mark.parametrize("content", [b"abcdefghij", b"short"])
def test_a_file_that_is_replaced_while_it_is_read_is_refused_by_name(bucket, store, content):
    with opened(bucket) as file:
        assert file.read(4) == b"0123"
        store.put("rows.csv", content)
        with pytest.raises(BadSettings, match=r"s3://data/rows\.csv was replaced while it was read"):
            file.read(4)


def test_a_file_that_is_deleted_while_it_is_read_is_refused_by_name(bucket, store):
    with opened(bucket) as file:
        store.delete("rows.csv")
        with pytest.raises(BadSettings, match=r"s3://data/rows\.csv was replaced"):
            file.read(4)


def test_a_file_that_changed_after_it_was_listed_is_not_opened(bucket, store):
    [stored] = bucket.stored()
    store.put("rows.csv", b"other rows")
    with pytest.raises(BadSettings, match=r"s3://data/rows\.csv has changed since the job began"):
        bucket.open(stored.name, stored.state)


def test_a_file_that_is_not_there_is_named(bucket):
    with pytest.raises(BadSettings, match=r"there is no s3://data/other\.csv"):
        bucket.open("other.csv", "any")


def test_of_two_writers_of_one_part_the_first_one_is_kept(bucket):
    assert bucket.put_new("part-0", b"mine")
    assert not bucket.put_new("part-0", b"yours")
    assert bucket.read("part-0").content == b"mine"


def test_what_is_listed_is_in_order_and_its_state_changes_with_it(bucket, store):
    before = bucket.stored()
    store.put("a.csv", b"")
    store.put("rows.csv", b"0123456789")
    after = bucket.stored()
    assert [stored.name for stored in after] == ["a.csv", "rows.csv"]
    assert after[1] == Stored("rows.csv", 10, after[1].state)
    assert after[1].state != before[0].state
