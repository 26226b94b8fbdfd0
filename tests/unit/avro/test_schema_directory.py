"""The directory knows every writer version by fingerprint, and by name the newest one."""

import json

import pytest
from datums import event, schema_of

from app.avro.framing import SingleObjectFraming
from app.avro.schemas import SchemaDirectory
from app.errors import DecodeFailed, Reason, SchemaIncompatible, SchemaMissing

NEW = event("double")
OLD = event("float")
RECURSIVE = event({"name": "next", "type": ["null", "Looped"]}, name="Looped")


@pytest.fixture
def folder(tmp_path):
    for path, node in [("event.avsc", NEW), ("history/event_v1.avsc", OLD), ("a/deep/other.avsc", event(name="Other"))]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps(node), encoding="utf-8")
    return tmp_path


def header(node):
    return SingleObjectFraming.header(schema_of(node).fingerprint)


def test_a_name_means_the_file_nearest_to_the_top(folder):
    assert SchemaDirectory(folder).named("Event").fields[0]["type"] == {"type": "double"}
    assert SchemaDirectory(folder).named("Other").name == "Other"


def test_history_never_shadows_even_if_its_name_sorts_first(folder):
    (folder / "event.avsc").rename(folder / "zzz.avsc")
    assert SchemaDirectory(folder).named("Event").fields[0]["type"] == {"type": "double"}


def test_every_version_is_found_by_its_fingerprint(folder):
    directory = SchemaDirectory(folder)
    assert json.loads(directory.by_header(header(NEW))) == NEW
    assert json.loads(directory.by_header(header(OLD))) == OLD


def test_a_fingerprint_of_no_file_is_an_unknown_schema(folder):
    with pytest.raises(DecodeFailed, match=schema_of(event("int")).fingerprint.hex()) as caught:
        SchemaDirectory(folder).by_header(header(event("int")))
    assert caught.value.reason is Reason.UNKNOWN_SCHEMA


def test_a_missing_name_lists_what_is_there(folder):
    with pytest.raises(SchemaMissing, match=r"'Absent' is not in .* \(there: Event, Other\)"):
        SchemaDirectory(folder).named("Absent")


def test_a_refused_file_is_named_with_its_reason_when_its_schema_is_wanted(folder):
    (folder / "looped.avsc").write_text(json.dumps(RECURSIVE), encoding="utf-8")
    (folder / "latin.avsc").write_bytes(b"\xff\xfe")
    directory = SchemaDirectory(folder)
    assert directory.named("Event").name == "Event"
    with pytest.raises(SchemaIncompatible, match=r"latin\.avsc: .*; looped\.avsc: .*Looped contains itself"):
        directory.named("Looped")


def test_a_directory_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(SchemaMissing, match="nowhere does not exist"):
        SchemaDirectory(tmp_path / "nowhere")


def test_a_file_is_no_directory(folder):
    with pytest.raises(SchemaMissing):
        SchemaDirectory(folder / "event.avsc")
