from deploy.local.json_record import read_record, write_record


def test_a_record_is_read_as_it_was_written_last(tmp_path):
    path = tmp_path / "new" / "record.json"
    assert read_record(path) is None

    write_record(path, {"pid": 1})
    write_record(path, {"pid": 2})

    assert read_record(path) == {"pid": 2}
    assert list(path.parent.iterdir()) == [path]  # no draft is left
