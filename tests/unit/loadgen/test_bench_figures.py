"""What `loadgen bench` makes of its runs: ratios, tables, plots, the file they are kept in."""

import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.bench.figures import write_figures
from loadgen.bench.latency_run import Load, due_times_ms, latencies
from loadgen.bench.page import BEGIN, END, block, ratio_of, with_block, write_page
from loadgen.bench.ratios import paired_ratio
from loadgen.bench.results import Results
from loadgen.errors import BadOption

POSITIVE = st.floats(1e-3, 1e6)
SMALL = {"seconds": 5.0, "warmup_s": 1.0}
MACHINE = {"cpus": 2, "platform": "Linux x86_64", "python": "3.11.7", "libraries": {"numpy": "2"}}
WORKER = {"batch": {"max_records": 512, "max_wait_s": 0.002}, "set": {"worker.processes": 2}}


def section(runs, **settings):
    return {
        "measured_at": "2026-01-02T03:04:05+00:00",
        "machine": MACHINE,
        "settings": {"rounds": 2, "worker": WORKER, **settings},
        "runs": runs,
    }


def drained(name, number, speed, cpu=1.0):
    figures = {"events_per_s": speed, "cpu_s_per_million": cpu, "peak_mb": 100.0}
    return {"round": number, "contender": name, **figures}


def late(name, number, rate, percentiles, missing=0):
    figures = dict(zip(("p50", "p99", "p99_9"), percentiles, strict=True))
    return {"round": number, "contender": name, "rate": rate, **figures, "missing": missing}


DRAIN = section(
    [
        drained("naive", 0, 50_000.0, 10.0),
        drained("exactly_once", 0, 500_000.0, 2.0),
        drained("exactly_once", 1, 400_000.0, 2.0),
        {"round": 0, "contender": "faust", "error": "faust-streaming is not installed\nat all"},
        drained("naive", 1, 50_000.0, 10.0),
    ],
    events={"naive": 20_000, "exactly_once": 3_000_000, "faust": 10_000},
)
LATENCY = section(
    [
        late("exactly_once", 0, 100, (3.0, 9.0, 12.0)),
        late("naive", 0, 100, (4.0, 8.0, 1234.0), missing=7),
        late("exactly_once", 1, 100, (3.0, 250.0, 300.0)),
        late("exactly_once", 2, 100, (2.0, 8.0, 9.0)),
        {"round": 1, "contender": "naive", "rate": 100, "error": "it ended"},
        {"round": 2, "contender": "naive", "rate": 1_000, "error": "it ended"},
    ],
    peers={"wait_s": 0.002, "linger_ms": 0.0, "commit_s": 0.1},
    **SMALL,
)
BATCH = section([drained("exactly_once", 0, 1e5) | {"batch": 32}], mode="exactly_once")
ALONE = {"round": 0, "contender": "onnx_alone", "events_per_s": 2.5e5, "cpu_s_per_million": 4.0}
FOREST = section([drained("exactly_once", 0, 2e5), ALONE], events=500_000, batch=512)
ALL = {"drain": DRAIN, "latency": LATENCY, "batch": BATCH, "forest": FOREST}


def test_a_ratio_is_the_geometric_mean_with_students_interval():
    ratio = paired_ratio([(2.0, 1.0), (8.0, 1.0)])

    reach = 12.706 * statistics.stdev([math.log(2), math.log(8)]) / math.sqrt(2)
    assert ratio.middle == pytest.approx(4.0)
    assert (ratio.low, ratio.high) == pytest.approx((4 * math.exp(-reach), 4 * math.exp(reach)))
    assert ratio.pairs == 2


def test_one_pair_has_a_ratio_and_no_interval():
    ratio = paired_ratio([(3.0, 2.0)])

    assert (ratio.middle, ratio.low, ratio.high) == (pytest.approx(1.5), None, None)


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=2, max_size=40))
def test_turned_around_a_ratio_and_its_interval_are_their_reciprocals(pairs):
    ratio, turned = paired_ratio(pairs), paired_ratio([(second, first) for first, second in pairs])

    assert ratio.middle * turned.middle == pytest.approx(1.0)
    if ratio.low > 0 and math.isfinite(ratio.high):
        assert ratio.low <= ratio.middle * (1 + 1e-9)
        assert ratio.low * turned.high == pytest.approx(1.0)


def test_ratios_pair_runs_of_one_round_and_leave_failures_out():
    ratio = ratio_of(DRAIN, "exactly_once", "naive", "events_per_s")

    assert (ratio.middle, ratio.pairs) == (pytest.approx(math.sqrt(80)), 2)
    assert ratio_of(DRAIN, "exactly_once", "faust", "events_per_s") is None


def test_the_page_has_a_row_for_every_contender_and_says_which_failed():
    text = block(ALL)

    row = "| **the worker**, exactly once | 3,000,000 | 450,000 (400,000{to}500,000) | 2.00 (2.00{to}2.00) | 100 |"
    assert row.format(to="\N{EN DASH}") in text
    assert "| faust-streaming, `take(256)` | 10,000 | failed: faust-streaming is not installed at all | | |" in text
    assert "the worker has `max_wait_s: 0.002`, `worker.processes: 2`, the rest at its defaults" in text
    assert "| **the worker**, exactly once | 3.0 / 9.0 (8.0{to}250) / 12.0 |  |".format(to="\N{EN DASH}") in text
    assert "4.0 / 8.0 / 1,234, 7 missing, 1 of 2 runs failed | failed: it ended |" in text
    assert "The worker, exactly once, has 80 % of ONNX Runtime's own throughput." in text


def test_a_page_keeps_what_stands_outside_the_marks(tmp_path):
    page = tmp_path / "BENCHMARKS.md"
    page.write_text("# By hand\n\nabove\n")

    write_page(page, {"drain": DRAIN})
    page.write_text(page.read_text() + "\nbelow\n")
    write_page(page, ALL)

    text = page.read_text()
    assert text.startswith("# By hand\n\nabove\n\n" + BEGIN)
    assert text.endswith(END + "\n\nbelow\n")
    assert text.count(BEGIN) == text.count("## Draining a backlog") == 1
    assert text.count("## Latency at fixed rates") == 1


def test_writing_the_same_block_again_changes_nothing():
    once = with_block("# x\n", "figures")

    assert with_block(once, "figures") == once


def test_there_is_a_plot_for_each_section_with_runs_and_equal_runs_give_equal_plots(tmp_path):
    write_figures(tmp_path / "a", ALL | {"batch": section([{"batch": 1, "error": "x", "contender": "y"}])})
    write_figures(tmp_path / "b", ALL)

    names = ["drain.svg", "forest.svg", "latency.svg"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    assert all((tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text() for name in names)


def test_a_sitting_replaces_its_own_sections_and_keeps_the_others(tmp_path):
    path = tmp_path / "deep" / "results.json"
    first = Results(path)
    for name in ("drain", "latency"):
        first.begin(name, "2026-01-01", {})["runs"].append({"of": name})
    first.save()

    second = Results(path)
    second.begin("drain", "2026-01-02", {})
    second.save()

    sections = Results(path).sections
    assert (sections["drain"]["measured_at"], sections["drain"]["runs"]) == ("2026-01-02", [])
    assert sections["latency"]["runs"] == [{"of": "latency"}]


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"format": 2, "sections": {}}), json.dumps({"format": 1})])
def test_a_file_of_somebody_else_is_not_overwritten(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)

    with pytest.raises(BadOption, match=r"results\.json"):
        Results(path)


def test_latency_counts_from_the_due_time_to_the_first_receipt():
    due = due_times_ms(Load(rate=100, seconds=0.03, warmup_s=0.01), start_ms=1000.0)

    assert due.tolist() == [1000.0, 1010.0, 1020.0, 1030.0]
    received = [
        (1012.0, [b"cust-00000000", b"cust-00000001"]),
        (1050.0, [b"cust-00000001", None, b"cust-00000003", b"cust-99999999"]),
    ]
    found = latencies(due, received)
    assert np.isnan(found[2])
    assert found[[0, 1, 3]].tolist() == [12.0, 2.0, 20.0]
