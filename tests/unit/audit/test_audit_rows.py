"""Records become rows of columns; what is personal is masked before anything else happens to it."""

import hashlib
import hmac

import pyarrow as pa
import pytest
from audit_world import FIRST, SECOND, pipeline_rows, prediction
from fakes import NOW_MS, FakeRecord
from hypothesis import given
from hypothesis import strategies as st

from app.audit.masking import Mask, check_names
from app.audit.policy import AuditSettings
from app.audit.rows import kept_fields
from app.errors import BadSettings, SchemaIncompatible
from app.records import origin_of

SECRET = b"0123456789abcdef"


def rows_of(records, **options):
    return pipeline_rows(**options).rows_of(records, origin_of(records, NOW_MS))


def hashed(value):
    return hmac.new(SECRET, value.encode(), hashlib.sha256).hexdigest()[:32]


def test_a_row_has_the_prediction_and_the_record_that_carried_it():
    (row,) = rows_of([prediction(7, "c-1", partition=3, plan="premium")]).to_pylist()
    assert row["audit_time"].timestamp() * 1000 == NOW_MS
    row["audit_time"] = row["predicted_at"] = None
    assert row == {
        "audit_key": b"c-1", "audit_partition": 3, "audit_offset": 7, "audit_time": None, "audit_reject": None,
        "customer_id": "c-1", "probability": 0.5, "plan": "premium", "scores": [0.5, 0.25], "predicted_at": None,
    }  # fmt: skip


def test_predictions_of_two_schemas_become_the_columns_of_the_newer_one():
    table = rows_of([prediction(0), prediction(1, node=SECOND, channel="shop")], reader=SECOND)
    assert table.column("channel").to_pylist() == ["web", "shop"]


def test_rows_stay_in_order_around_records_that_are_none():
    records = [prediction(0), FakeRecord(None, offset=1), prediction(2), FakeRecord(b"junk", offset=3), prediction(4)]
    table = rows_of(records)
    assert table.column("audit_offset").to_pylist() == [0, 1, 2, 3, 4]
    assert table.column("customer_id").to_pylist() == ["c-0", None, "c-2", None, "c-4"]
    assert table.column("audit_reject").to_pylist() == [None, "tombstone", None, "bad_frame", None]


def test_only_tombstones_are_rows_too():
    table = rows_of([FakeRecord(None, offset=1), FakeRecord(None, offset=2)])
    assert table.column("audit_reject").to_pylist() == ["tombstone"] * 2


@given(st.lists(st.none() | st.binary(max_size=60), min_size=1, max_size=20))
def test_whatever_the_bytes_each_record_has_one_row(values):
    records = [FakeRecord(value, offset=offset, key=value) for offset, value in enumerate(values)]
    table = rows_of(records)
    assert table.column("audit_offset").to_pylist() == list(range(len(values)))
    assert table.column("audit_key").to_pylist() == values


def test_a_field_is_dropped_or_hashed_and_equal_values_stay_equal():
    mask = Mask({"customer_id": "hash", "probability": "hash", "plan": "drop", "audit_key": "hash"}, SECRET)
    table = rows_of([prediction(0, "c-1"), prediction(1, "c-2"), prediction(2, "c-1")], mask=mask)
    assert table.column("customer_id").to_pylist() == [hashed("c-1"), hashed("c-2"), hashed("c-1")]
    assert table.column("audit_key").to_pylist()[0] == hashed("c-1").encode() == mask.key(b"c-1")
    assert table.column("probability").to_pylist() == [hashed("0.5")] * 3
    assert "plan" not in table.schema.names


def test_nothing_hashed_is_still_nothing():
    mask = Mask({"customer_id": "hash", "audit_key": "hash"}, SECRET)
    table = rows_of([FakeRecord(None, key=None)], mask=mask)
    assert (table.column("customer_id").null_count, table.column("audit_key").null_count) == (1, 1)


def test_a_dropped_key_cannot_be_asked_for():
    mask = Mask({"audit_key": "drop"}, None)
    assert rows_of([prediction(0)], mask=mask).column("audit_key").null_count == 1
    with pytest.raises(BadSettings, match="cannot be asked for a key"):
        mask.key(b"c-1")


def test_a_list_cannot_be_hashed():
    with pytest.raises(BadSettings, match="scores is a list"):
        pipeline_rows(mask=Mask({"scores": "hash", "audit_key": "keep"}, SECRET))


def test_a_field_with_a_name_of_ours_is_refused():
    node = {**FIRST, "fields": [*FIRST["fields"], {"name": "audit_offset", "type": "long"}]}
    with pytest.raises(SchemaIncompatible, match="audit_offset: names with audit_ are the audit trail's own"):
        pipeline_rows(reader=node)


def test_a_misspelt_field_is_refused_since_it_would_stay_in_the_clear():
    with pytest.raises(BadSettings, match=r"custmer_id: no such field; there are audit_key, id"):
        check_names({"custmer_id": "hash"}, [pa.schema([("id", pa.string())])])


def test_files_have_plain_types():
    from audit_world import schema

    kinds = {column.name: str(column.type) for column in kept_fields(schema(FIRST))}
    assert kinds["plan"] == "string"
    assert kinds["predicted_at"] == "timestamp[ms, tz=UTC]"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"mask": {"customer_id": "drop"}}, "mask says nothing of audit_key"),
        ({"mask": {"customer_id": "hash", "audit_key": "hash"}}, "needs mask_secret_file"),
        ({"mask": {"audit_key": "hash"}, "mask_secret": "short"}, "at least 16 characters"),  # pragma: allowlist secret
        ({"mask": {"audit_key": "scramble"}}, "'keep', 'drop' or 'hash'"),
        ({"mask": {"audit_key": "hash"}, "mask_secret_file": "/nowhere/at-all"}, "cannot read /nowhere/at-all"),
        ({"mask_secret": "x" * 16, "mask_secret_file": "/etc/hostname"}, "are both set"),
        ({"retention_days": 0}, "greater than or equal to 1"),
        ({"retain": 3}, "Extra inputs"),
    ],
)  # fmt: skip
def test_settings_that_would_not_do_what_they_say_are_refused(settings, why):
    with pytest.raises(ValueError, match=why):
        AuditSettings(**settings)


def test_the_secret_is_the_content_of_its_file_and_does_not_show(tmp_path):
    file = tmp_path / "secret"
    file.write_text("a secret of a good length\n")
    settings = AuditSettings(mask={"audit_key": "hash"}, mask_secret_file=file)
    assert settings.secret() == b"a secret of a good length"
    hidden = AuditSettings(
        mask={"audit_key": "hash"},
        mask_secret="a secret of a good length",  # pragma: allowlist secret
    )  # pragma: allowlist secret
    assert "good length" not in repr(hidden)
