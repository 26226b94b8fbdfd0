"""Jobs that are killed and go on: every row in one part, once, whatever happens."""

import io
import json

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring_world import Died, MemoryFolder, RowsInMemory, model, scorer, table

from app.errors import BadSettings, NotReachable, SchemaIncompatible
from app.scoring.job import JobPolicy, ScoreJob
from app.scoring.rows_in import Unreadable
from app.specs import ProbabilitiesOutput


def rows_of(*values, first_id=0):
    ids = pa.array([f"c{first_id + number}" for number in range(len(values))], pa.string())
    return table(list(values), id=ids)


def job(files, out, told=lambda _: None, **policy):
    return ScoreJob(files, out, scorer(), JobPolicy(**{"key": "id", "chunk_rows": 4} | policy), told)


def parts(out, prefix="part-"):
    return {
        name: pa.parquet.read_table(io.BytesIO(out.files[name]))
        for name in sorted(out.files)
        if name.startswith(prefix)
    }


def contents(files):
    """What is in them: two files of the same rows may differ in their bytes."""
    read = {
        name: pa.parquet.read_table(io.BytesIO(content)).to_pylist() if name.endswith(".parquet") else content
        for name, content in files.items()
    }
    return dict(sorted(read.items()))


def answers(out):
    """Row by row over all parts, in order of their names."""
    return [row for part in parts(out).values() for row in part.to_pylist()]


def rejections(out):
    return [row for part in parts(out, "_rejected/").values() for row in part.to_pylist()]


def two_files(**how):
    first, second = rows_of(*range(10)), rows_of(50, 500, 60, first_id=10)
    return [RowsInMemory("a", first, **how), RowsInMemory("b", second, **how)]


def test_each_file_becomes_parts_of_so_many_rows_and_a_sum():
    out = MemoryFolder()
    done = job(two_files(), out).run()
    assert (done.answered, done.rejected) == (12, 1)
    counts = {name: part.num_rows for name, part in parts(out).items()}
    assert counts == {
        "part-00000-00000.parquet": 4,
        "part-00000-00001.parquet": 4,
        "part-00000-00002.parquet": 2,
        "part-00001-00000.parquet": 2,
    }
    assert json.loads(out.files["_SUCCESS"]) == {"answered": 12, "rejected": 1}


def test_answers_stand_beside_the_key_and_what_else_is_kept():
    out = MemoryFolder()
    job(two_files(), out, keep=("x", "plan")).run()
    first = answers(out)[0]
    assert list(first)[:5] == ["id", "x", "plan", "prediction", "probability"]
    assert [row["probability"] for row in answers(out)] == pytest.approx([row["x"] / 100 for row in answers(out)])
    assert [row["id"] for row in answers(out)] == [f"c{number}" for number in (*range(11), 12)]


def test_a_rejected_row_is_in_the_side_file_with_why_and_what_it_said():
    out = MemoryFolder()
    job(two_files(), out).run()
    (row,) = rejections(out)
    assert (row["rejected_file"], row["rejected_row"], row["rejected_stage"]) == ("b", 1, "features")
    assert (row["rejected_reason"], row["rejected_message"]) == ("out_of_range", "x is 500, allowed 0 to 100")
    assert (row["id"], row["x"]) == ("c11", 500.0)


def test_rows_that_cannot_be_read_and_lines_that_are_none_are_in_the_side_file():
    unreadable = [Unreadable(1, "id is not UTF-8"), Unreadable(None, "line 9 has 1 cells", "oops")]
    out = MemoryFolder()
    done = job([RowsInMemory("a", rows_of(1, 2, 3, 4, 500), unreadable=unreadable)], out).run()
    assert (done.answered, done.rejected) == (3, 3)
    found = [(row["rejected_row"], row["rejected_reason"], row["rejected_line"]) for row in rejections(out)]
    assert found == [(1, "bad_utf8", None), (None, "bad_frame", "oops"), (4, "out_of_range", None)]
    assert [row["id"] for row in answers(out)] == ["c0", "c2", "c3"]


def test_a_file_without_rows_is_done_at_once():
    out = MemoryFolder()
    done = job([RowsInMemory("a", rows_of())], out).run()
    assert (done.answered, done.rejected) == (0, 0)
    assert [part.num_rows for part in parts(out).values()] == [0]


values = st.lists(st.one_of(st.integers(0, 100), st.just(500)), max_size=23)


@given(st.lists(values, min_size=1, max_size=3), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_how_rows_are_cut_changes_no_answer(files, piece_rows, chunk_rows, knows_rows):
    inputs = [
        RowsInMemory(str(number), rows_of(*x, first_id=100 * number), piece_rows=piece_rows, knows_rows=knows_rows)
        for number, x in enumerate(files)
    ]
    out = MemoryFolder()
    done = job(inputs, out, chunk_rows=chunk_rows).run()
    expected = [f"c{100 * number + row}" for number, x in enumerate(files) for row in range(len(x)) if x[row] <= 100]
    assert [row["id"] for row in answers(out)] == expected
    assert done.answered == len(expected)
    assert done.answered + done.rejected == sum(map(len, files))
    assert all(part.num_rows <= chunk_rows for part in parts(out).values())
    assert len(rejections(out)) == done.rejected


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=6), st.booleans(), st.integers(1, 7))
def test_however_often_it_is_killed_the_result_is_that_of_one_run(deaths, knows_rows, piece_rows):
    def files():
        return two_files(knows_rows=knows_rows, piece_rows=piece_rows)

    whole, killed = MemoryFolder(), {}
    sums = job(files(), whole).run()
    for at, after in deaths:
        try:
            job(files(), MemoryFolder(killed, dies_at=at, after=after)).run()
        except Died:
            continue
    again = MemoryFolder(killed)
    assert job(files(), again).run() == sums
    assert contents(again.files) == contents(whole.files)


@given(st.integers(1, 14), st.integers(1, 14))
def test_two_processes_on_one_job_answer_each_row_once(first, second):
    whole = MemoryFolder()
    job(two_files(), whole).run()
    shared = {}
    for dies_at in (first, second, None):
        try:
            # each lists the folder when it starts; what the other writes meanwhile it does not see
            job(two_files(), StaleFolder(shared, dies_at=dies_at)).run()
        except Died:
            continue
    assert contents(shared) == contents(whole.files)


class StaleFolder(MemoryFolder):
    """Says that nothing is there: the other process wrote it all since."""

    def names(self):
        return set()


def test_what_is_done_is_not_read_again_where_the_file_allows_it():
    out = {}
    with pytest.raises(Died):
        job([RowsInMemory("a", rows_of(*range(10)))], MemoryFolder(out, dies_at=4)).run()
    files = [RowsInMemory("a", rows_of(*range(10)))]
    job(files, MemoryFolder(out)).run()
    assert files[0].asked == [4]


def test_a_finished_job_reads_nothing_and_says_the_same():
    out, files = MemoryFolder(), two_files()
    sums = job(two_files(), out).run()
    before = dict(out.files)
    assert job(files, out).run() == sums
    assert [file.asked for file in files] == [[], []]
    assert out.files == before


def test_a_file_that_breaks_off_leaves_what_is_done_to_go_on_from():
    out = MemoryFolder()
    with pytest.raises(NotReachable):
        job([RowsInMemory("a", rows_of(*range(10)), breaks_at=2)], out).run()
    assert list(parts(out)) == ["part-00000-00000.parquet"]
    assert job([RowsInMemory("a", rows_of(*range(10)))], out).run().answered == 10
    assert [row["id"] for row in answers(out)] == [f"c{number}" for number in range(10)]


def test_it_tells_how_far_it_is_and_of_how_much():
    told = []
    job(two_files(), MemoryFolder(), told.append).run()
    done = [so_far.done.answered + so_far.done.rejected for so_far in told]
    assert done == sorted(done)
    assert done[-1] == 13
    assert {so_far.total for so_far in told} == {13}
    told.clear()
    job(two_files(knows_rows=False), MemoryFolder(), told.append).run()
    assert {so_far.total for so_far in told} == {None}


def test_parts_can_be_csv():
    out = MemoryFolder()
    job(two_files(), out, output="csv").run()
    found = pa.csv.read_csv(io.BytesIO(out.files["part-00001-00000.csv"])).to_pylist()
    assert [(row["id"], row["prediction"], row["answered_by"]) for row in found] == [
        ("c10", 1, "requested"),
        ("c12", 1, "requested"),
    ]
    side = pa.csv.read_csv(io.BytesIO(out.files["_rejected/part-00001-00000.csv"])).to_pylist()
    assert side[0]["rejected_reason"] == "out_of_range"


def test_csv_cannot_hold_lists():
    outputs = (ProbabilitiesOutput(name="p", classes=(0, 1), fields={"all": "probabilities"}),)
    with pytest.raises(BadSettings, match="'all' is list"):
        ScoreJob(two_files(), MemoryFolder(), scorer(models={"1": model(outputs=outputs)}), JobPolicy(output="csv"))


def test_a_column_to_keep_must_be_there_and_be_the_same_everywhere():
    with pytest.raises(SchemaIncompatible, match="a has no column nowhere"):
        job(two_files(), MemoryFolder(), keep=("nowhere",))
    other = rows_of(1).set_column(0, "x", pa.array([1]))
    with pytest.raises(SchemaIncompatible, match="'x' is double in a, int64 in c"):
        job([*two_files(), RowsInMemory("c", other)], MemoryFolder(), keep=("x",))


def test_a_kept_column_must_not_have_a_name_of_the_answers():
    rows = rows_of(1).append_column("prediction", pa.array([9]))
    with pytest.raises(BadSettings, match="prediction more than once"):
        job([RowsInMemory("a", rows)], MemoryFolder(), keep=("prediction",))


def test_a_key_that_is_no_key_is_refused_before_anything_is_written():
    out = MemoryFolder()
    with pytest.raises(SchemaIncompatible, match="'x' is double"):
        job(two_files(), out, key="x")
    assert not out.files


def test_a_mark_that_somebody_else_wrote_is_refused():
    out = MemoryFolder({"_done/00000-00000.json": b"{"})
    with pytest.raises(BadSettings, match="was not written by this program"):
        job(two_files(), out).run()
