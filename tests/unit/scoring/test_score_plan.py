"""A folder holds one job: another order is refused, and what differs is said."""

import pytest

from app.errors import BadSettings
from app.scoring.plan import InputFile, Plan, parsed_plan

FILE = InputFile(name="a.parquet", size=1, state="x")
PLAN = Plan(
    model="churn",
    version=None,
    files=(FILE,),
    key="id",
    keep=(),
    output="parquet",
    chunk_rows=10,
    delimiter=",",
    missing=(),
    bad_output="dead_letter",
    rollout={"stable": "1"},
    digests={"1": "abc"},
)


def test_a_plan_survives_being_written():
    assert parsed_plan("out", PLAN.model_dump_json().encode()) == PLAN


def test_the_same_order_is_the_same_job_whatever_the_rollout_says_by_now():
    PLAN.check_same_job("out", PLAN.model_copy(update={"rollout": None, "digests": {}}))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "other"}, "model 'churn', not 'other'"),
        ({"version": "2"}, "version none, not '2'"),
        ({"key": None}, "key 'id', not none"),
        ({"chunk_rows": 20}, "chunk_rows 10, not 20"),
        ({"files": (FILE, InputFile(name="b.parquet", size=1, state="x"))}, "b.parquet is new"),
        ({"files": ()}, "a.parquet is gone"),
        ({"files": (InputFile(name="a.parquet", size=1, state="y"),)}, "a.parquet has changed"),
    ],
)
def test_another_order_is_refused_and_what_differs_is_said(changed, said):
    with pytest.raises(BadSettings) as caught:
        PLAN.check_same_job("out", PLAN.model_copy(update=changed))
    assert said in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format": 2}', b"\xff"])
def test_a_page_that_is_no_plan_is_refused_by_name(content):
    with pytest.raises(BadSettings, match=r"out/_plan\.json"):
        parsed_plan("out", content)
