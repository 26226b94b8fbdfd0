"""The pipelines this load generator has events for, made from the options that name them."""

from pathlib import Path

from loadgen.churn import ChurnFormula
from loadgen.churn_events import ChurnEvents
from loadgen.digit_events import DigitEvents, Digits
from loadgen.errors import BadOption
from loadgen.pipeline import Pipeline

PIPELINES = ("churn", "digits")


def pipeline_named(name: str, schemas: Path, seed: int) -> Pipeline:
    """Return the pipeline of that name.

    Raises BadOption for another one, MissingExtra if its data need a library.
    """
    if seed < 0:
        raise BadOption("--seed: 0 or more")
    if name == "churn":
        return ChurnEvents(ChurnFormula.load(schemas / "churn_generated.json"), seed)
    if name == "digits":
        return DigitEvents(Digits.load())
    raise BadOption(f"--pipeline: {name!r} is not one of {', '.join(PIPELINES)}")
