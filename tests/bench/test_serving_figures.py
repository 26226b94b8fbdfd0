"""What the bench of the serving peers says of its figures; that it measures, it says itself."""

from dataclasses import replace

import pytest

from tests.bench.serving_figures import OURS, PLAIN, Figures, by_surface, most_within, page
from tests.bench.serving_peers import BEGIN, END, PAGE, medians, written

TURN = Figures(OURS["rest"], "rest", "on", 8, 4000.0, 2.0, 9.0, 100.0, 6.0)
TURNS = [
    TURN,
    replace(TURN, callers=32, per_second=9000.0, p99_ms=24.0),
    replace(TURN, batching="off", per_second=2000.0),
    replace(TURN, label=PLAIN, batching="none", per_second=1500.0, p50_ms=5.0, p99_ms=20.0),
]


@pytest.mark.parametrize(("p99_ms", "most"), [(8.9, None), (9.0, 4000.0), (23.9, 4000.0), (24.0, 9000.0)])
def test_the_most_within_a_p99_is_that_of_the_turns_which_keep_it(p99_ms, most):
    assert most_within(TURNS[:2], p99_ms) == most


def test_a_page_sets_what_was_found_against_what_is_quoted():
    said = page(TURNS, "here", ["BentoML does not install"])
    assert said.startswith("here\n\nNot measured: BentoML does not install\n")
    assert "| batching: 3 to 10 times | within 50 ms: REST 4.5 times, gRPC cannot be said |" in said
    assert "| the aim: 3 times the plain server | within 50 ms: 6.0 times; 25 ms: 6.0 times |" in said
    assert "FastAPI + scikit-learn 1,500/s at p50 5.0 and p99 20.0 ms" in said


def test_rest_comes_before_grpc_and_else_nothing_changes_places():
    turns = [replace(TURN, protocol="grpc"), *TURNS]
    assert [key[0] for key in by_surface(turns)] == ["rest", "rest", "rest", "grpc"]


def test_a_figure_of_several_rounds_is_their_median():
    rounds = [replace(TURN, per_second=rate) for rate in (1.0, 9.0, 3.0)]
    assert medians(rounds) == [replace(TURN, per_second=3.0)]


def test_the_page_has_marks_and_keeps_what_is_around_them():
    text = PAGE.read_text(encoding="utf-8")
    again = written(text, "new")
    assert again.count(BEGIN) == again.count(END) == 1
    assert again.split(BEGIN)[0] == text.split(BEGIN)[0]
    assert again.split(END)[1] == text.split(END)[1]
    assert f"{BEGIN}\nnew\n{END}" in again
