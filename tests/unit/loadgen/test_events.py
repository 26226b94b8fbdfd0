"""What events are: the formula, the keys, the digits, the writer versions."""

import io
import json
from itertools import pairwise
from pathlib import Path

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.churn import ChurnFormula
from loadgen.churn_events import ChurnEvents
from loadgen.digit_events import DigitEvents, Digits
from loadgen.encode import Writer, write_mixed
from loadgen.errors import BadOption
from loadgen.event_sources import pipeline_named
from loadgen.event_stream import EventStream
from loadgen.pipeline import UNKNOWN_TRUTH, id_numbers, numbered_ids
from loadgen.poison import Poisoner, PoisonShare
from loadgen.schemas import SchemaDirectory
from loadgen.skew import KeyNumbers, Skew
from loadgen.wire import CONFLUENT, SINGLE_OBJECT, schema_id_bytes

SCHEMAS = Path(__file__).parents[3] / "schemas"
PAGE = SCHEMAS / "churn_generated.json"
DIRECTORY = SchemaDirectory(SCHEMAS)
FORMULA = ChurnFormula.load(PAGE)
DIGITS = Digits.load()
SEEDS = st.integers(0, 2**32)


def pipelines(seed=7):
    return [ChurnEvents(FORMULA, seed), DigitEvents(DIGITS)]


def stream(pipeline, versions="current", poison=0.0):
    wire_format = SINGLE_OBJECT
    current = DIRECTORY.current(pipeline.event_schema)
    writers = DIRECTORY.writers(pipeline.event_schema, versions)
    return EventStream(
        pipeline=pipeline,
        numbers=KeyNumbers(Skew(), 7),
        writers=[Writer(schema, wire_format, schema.fingerprint) for schema in writers],
        everything=Writer(current, wire_format, current.fingerprint),
        poison_share=PoisonShare(poison),
        poisoner=Poisoner(current, wire_format, current.fingerprint),
    )


def test_the_formula_gives_the_customers_its_page_says():
    check = json.loads(PAGE.read_text())["check"]
    for expected in check["customers"]:
        index = expected["index"]
        customer = FORMULA.rows(check["seed"], index, 1)
        total = float(customer.total_charges[0])
        assert numbered_ids("cust-", np.array([index])).to_pylist() == [expected["customer_id"]]
        assert {name: getattr(customer, name)[0].item() for name in ("age", "income", "tenure_months")} == {
            name: expected[name] for name in ("age", "income", "tenure_months")
        }
        assert float(customer.monthly_charges[0]) == expected["monthly_charges"]
        assert (None if np.isnan(total) else total) == expected["total_charges"]
        assert FORMULA.plans[customer.plan[0]] == expected["plan"]
        assert float(customer.probability[0]) == pytest.approx(expected["probability"], abs=1e-9)
        assert bool(customer.churned[0]) == expected["churned"]


def test_knowing_the_formula_predicts_much_better_than_the_majority():
    customers = FORMULA.rows(7, 0, 200_000)
    stayed = 1 - customers.churned.mean()
    best = ((customers.probability >= 0.5) == customers.churned).mean()
    assert 0.65 < stayed < 0.70
    assert 0.84 < best < 0.86
    assert customers.probability.mean() == pytest.approx(customers.churned.mean(), abs=0.005)


def test_features_stay_within_what_the_page_says():
    customers = FORMULA.rows(11, 0, 100_000)
    assert (customers.age.min(), customers.age.max()) == (18, 90)
    assert (customers.tenure_months.min(), customers.tenure_months.max()) == (0, 72)
    assert customers.monthly_charges.min() >= 15
    assert customers.monthly_charges.max() <= 130
    assert np.isnan(customers.total_charges).mean() == pytest.approx(0.02, abs=0.003)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(0, 20_000), st.integers(0, 9_000))
def test_a_customer_is_the_same_whichever_rows_are_asked_for(seed, first, count):
    rows = FORMULA.rows(seed, first, count)
    middle = count // 2
    if count:
        alone = FORMULA.rows(seed, first + middle, 1)
        for name in ("age", "income", "total_charges", "probability", "churned"):
            assert np.array_equal(getattr(rows, name)[[middle]], getattr(alone, name), equal_nan=True)
    assert len(rows.age) == count


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.lists(st.integers(0, 50_000), max_size=60))
def test_columns_of_any_numbers_are_the_rows_of_these_numbers(seed, numbers):
    events = ChurnEvents(FORMULA, seed).columns(np.array(numbers, dtype=np.int64))
    assert events.column("income").to_pylist() == [float(FORMULA.rows(seed, n, 1).income[0]) for n in numbers]


@given(st.lists(st.integers(0, 10**12), max_size=50))
def test_ids_are_the_numbers_padded_and_read_back(numbers):
    ids = numbered_ids("cust-", np.array(numbers, dtype=np.int64))
    ids.validate(full=True)
    assert ids.to_pylist() == [f"cust-{number:08d}" for number in numbers]
    assert id_numbers("cust-", ids).tolist() == numbers


def test_ids_of_others_have_no_truth():
    strange = pa.array(["", "cust-1", "cust-0000000x", "digit-1-2", None, "cust-99999999999999999999", "digit-9999-1"])
    for pipeline in pipelines():
        truth = pipeline.truth(strange)
        ours = [row for row, answer in enumerate(truth) if answer != UNKNOWN_TRUTH]
        assert ours == ([3] if pipeline.name == "digits" else [])


def test_the_truth_can_be_had_from_the_ids_alone():
    for pipeline in pipelines():
        numbers = np.array([5, 0, 4095, 4096, 9000, 5])
        truth = pipeline.truth(pipeline.columns(numbers).column(pipeline.id_field))
        if pipeline.name == "churn":
            assert truth.tolist() == [int(FORMULA.rows(7, n, 1).churned[0]) for n in numbers.tolist()]
        else:
            assert truth.tolist() == DIGITS.labels[numbers % len(DIGITS.labels)].tolist()


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 500), st.floats(0, 3), st.integers(0, 10_000), st.integers(1, 5_000))
def test_skewed_numbers_do_not_depend_on_how_they_are_asked_for(seed, population, exponent, first, count):
    skew = Skew(population, exponent)
    whole = KeyNumbers(skew, seed).numbers(first, count)
    parts = [KeyNumbers(skew, seed).numbers(first, count // 2)] if count // 2 else []
    parts.append(KeyNumbers(skew, seed).numbers(first + count // 2, count - count // 2))
    assert np.array_equal(whole, np.concatenate(parts))
    assert whole.min() >= 0
    assert whole.max() < population


def test_popularity_follows_zipf():
    numbers = KeyNumbers(Skew(1000, 1.0), 3).numbers(0, 200_000)
    counts = np.bincount(numbers, minlength=1000)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.15)
    assert counts[0] / 200_000 == pytest.approx(1 / np.sum(1 / np.arange(1, 1001)), rel=0.05)


def test_equal_seeds_make_equal_bytes_however_they_are_cut():
    for pipeline, again in zip(pipelines(), pipelines(), strict=True):
        times = np.full(5_000, 1_760_000_000_000)
        whole = stream(pipeline, "all", 0.01).chunk(0, times)
        other = stream(again, "all", 0.01)
        first, second = other.chunk(0, times[:1_234]), other.chunk(1_234, times[1_234:])
        assert whole.values == first.values + second.values
        assert whole.keys == first.keys + second.keys


def test_another_seed_makes_other_customers():
    times = np.zeros(10, dtype=np.int64)
    one, other = (stream(ChurnEvents(FORMULA, seed)).chunk(0, times) for seed in (1, 2))
    assert one.keys == other.keys
    assert not set(one.values) & set(other.values)


@pytest.mark.parametrize("stem", ["churn_event", "digit_event"])
def test_every_version_in_history_resolves_to_todays_schema_and_to_the_next(stem):
    chain = [*DIRECTORY.history(stem), DIRECTORY.current(stem)]
    assert len({schema.fingerprint for schema in chain}) == len(chain) > 2
    pipeline = next(p for p in pipelines() if p.event_schema == stem)
    for writer, following in pairwise(chain):
        value = stream(pipeline, writer.version).chunk(0, np.array([1_760_000_000_123])).values[0]
        assert value[2:10] == writer.fingerprint
        for reader in (following, chain[-1]):
            datum = io.BytesIO(value[10:])
            event = fastavro.schemaless_reader(datum, writer.parsed, reader.parsed)
            assert set(event) == {field["name"] for field in reader.fields}
            assert datum.read() == b""


@pytest.mark.parametrize("wire_format", [SINGLE_OBJECT, CONFLUENT], ids=lambda w: w.name)
@pytest.mark.parametrize("versions", ["current", "1", "all"])
def test_what_is_written_in_columns_reads_back_record_by_record(wire_format, versions):
    for pipeline in pipelines():
        schemas = DIRECTORY.writers(pipeline.event_schema, versions)
        current = DIRECTORY.current(pipeline.event_schema)
        known = {schema_id_bytes(at + 1): schema for at, schema in enumerate([*schemas, current])}
        if wire_format is SINGLE_OBJECT:
            known = {schema.fingerprint: schema for schema in [*schemas, current]}
        identity = {schema.version: name for name, schema in known.items()}
        writers = [Writer(schema, wire_format, identity[schema.version]) for schema in schemas]
        everything = Writer(current, wire_format, identity["current"])
        events = pipeline.columns(np.arange(300)).append_column("event_time", pa.array(np.arange(300)))
        values = write_mixed(writers, everything, events, 17)
        for row, value in enumerate(values):
            head = wire_format.header_size
            writer = known[value[len(wire_format.marker) : head]]
            datum = io.BytesIO(value[head:])
            event = fastavro.schemaless_reader(datum, writer.parsed, current.parsed)
            assert datum.read() == b""
            assert event[pipeline.id_field] == events.column(pipeline.id_field)[row].as_py()
            assert event["event_time"].microsecond == row * 1000
            if pipeline.name == "churn":
                assert event["plan"] == FORMULA.plans[events.column("plan")[row].as_py()]
                assert event["income"] == pytest.approx(events.column("income")[row].as_py(), rel=1e-6)
            else:
                assert event["pixels"] == events.column("pixels")[row].as_py()


@given(st.one_of(st.integers(0, 2**31 - 1), st.integers(0x7F800000, 0x7FBFFFFF)))
def test_no_schema_id_is_changed_by_travelling_as_a_float(schema_id):
    identity = schema_id_bytes(schema_id)
    assert CONFLUENT.header_columns(identity, 2)[1].buffers()[1].to_pybytes()[:8] == identity * 2


def test_a_nan_pattern_as_schema_id_or_fingerprint_reaches_the_wire():
    schema = DIRECTORY.current("digit_event")
    events = DigitEvents(DIGITS).columns(np.arange(3)).append_column("event_time", pa.array([1, 2, 3]))
    for wire_format, identity in (
        (CONFLUENT, bytes.fromhex("0001807f")),  # id 98431 is a signalling NaN when read as a float
        (SINGLE_OBJECT, bytes.fromhex("010000000000f07f")),
    ):
        for value in Writer(schema, wire_format, identity).write(events):
            assert value.startswith(wire_format.marker + identity)


@given(st.integers(0, 10_000), st.integers(1, 3_000), st.sampled_from([0.0, 0.01, 0.05, 0.333, 1.0]))
def test_poison_is_spread_evenly_and_counted_exactly(first, count, share):
    ordinals = PoisonShare(share).ordinals(0, first + count)
    assert (ordinals >= 0).sum() == int((first + count) * round(share * 1e6)) // 1_000_000
    assert np.array_equal(ordinals[first:], PoisonShare(share).ordinals(first, count))
    assert ordinals[ordinals >= 0].tolist() == list(range(int((ordinals >= 0).sum())))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Skew(0, 1.0),
        lambda: Skew(-1),
        lambda: Skew(5, 11),
        lambda: PoisonShare(1.5),
        lambda: DIRECTORY.writers("churn_event", "9"),
        lambda: DIRECTORY.current("no_such"),
        lambda: pipeline_named("nonsense", SCHEMAS, 1),
        lambda: pipeline_named("churn", SCHEMAS / "history", 1),
        lambda: pipeline_named("churn", SCHEMAS, -1),
    ],
)
def test_an_impossible_option_is_refused_by_name(make):
    with pytest.raises(BadOption):
        make()
