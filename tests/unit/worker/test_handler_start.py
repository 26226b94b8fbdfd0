"""A handler that cannot serve is refused before it serves, by name and with the real reason."""

import numpy as np
import pytest
from handler_world import BAD, Mute, Plain, odd, raising, start
from small_pipeline import COLUMNS, SICK, model_of

from app.answering.handler_start import handler_class
from app.errors import HandlerInvalid, ModelFailed
from app.handler import RejectRows


def refused(kind, match, **steps):
    with pytest.raises(HandlerInvalid, match=match) as caught:
        start(type("Made", (kind,), steps) if steps else kind)
    assert "handler 'made_handlers:Made'" in str(caught.value)


def _with_argument(self, size):
    """Nobody gives it one."""


async def _async_step(self, given):
    """No coroutine is awaited."""


def _generator_step(self, given):
    yield given


REFUSALS = {
    "__init__": (_with_argument, "cannot be made without arguments: TypeError: .*size"),
    "initialize": (raising(PermissionError("no weights")), "refuses in initialize: PermissionError: no weights"),
    "preprocess": (lambda self: {}, "preprocess does not take one argument"),
    "postprocess": (lambda self, outputs, more: {}, "postprocess does not take one argument"),
}


@pytest.mark.parametrize("step", REFUSALS)
def test_a_handler_that_refuses_is_refused_with_its_reason(step):
    act, match = REFUSALS[step]
    refused(Plain, match, **{step: act})


@pytest.mark.parametrize("step", ["initialize", "preprocess", "postprocess"])
@pytest.mark.parametrize(
    ("act", "match"),
    [(None, "has no method"), (7, "has no method"), (_async_step, "coroutine"), (_generator_step, "generator")],
)
def test_a_class_without_the_three_methods_is_no_handler(step, act, match):
    refused(Plain, match, **{step: act})


@pytest.mark.parametrize("exc", [SystemExit(0), KeyboardInterrupt(), GeneratorExit(), Mute()], ids=repr)
def test_nothing_that_initialize_raises_ends_the_process(exc):
    refused(Plain, type(exc).__name__, initialize=raising(exc))


@pytest.mark.parametrize("found", [None, 7, Plain(), print], ids=["None", "int", "instance", "builtin"])
def test_what_is_no_class_is_no_handler(found):
    refused(found, "is no class but a")


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (None, "cannot be imported: ModuleNotFoundError: No module named 'absent_handler'"),
        ("import nothing_of_the_kind", "No module named 'nothing_of_the_kind'"),
        ("raise SystemExit(0)", "cannot be imported: SystemExit: 0"),
        ("def (", "cannot be imported: .*SyntaxError"),
        ("x = 1", "cannot be imported: AttributeError: .*'Made'"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_the_reason(source, match, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"handler_{abs(hash(source))}" if source else "absent_handler"
    if source:
        (tmp_path / f"{name}.py").write_text(source)
    with pytest.raises(HandlerInvalid, match=match):
        handler_class(f"{name}:Made")


@pytest.mark.parametrize(
    ("examples", "match"),
    [
        (7, "its examples are no events"),
        ([7], "its examples are no events"),
        ([{"y": 1.0}], "its examples are no events: ValueError: events have no y"),
        ([{"x": "text"}], "its examples are no events"),
        ([{"x": None}], "fails on its examples: preprocess gave what is not finite"),
        ([{"x": SICK}], "example 0 has no prediction"),
    ],
)
def test_examples_must_be_events_that_have_a_prediction(examples, match):
    refused(Plain, match, examples=examples)


def test_an_example_must_not_be_rejected():
    made = odd(before=raising(RejectRows([0], "expired", "late")))
    made.examples = ({"x": BAD},)
    refused(made, "it rejects an example: RejectRows: late")


def test_an_example_must_be_the_same_alone_as_beside_the_others():
    class Normalizing(Plain):
        examples = ({"x": 1.0}, {"x": 5.0})

        def preprocess(self, batch):
            made = super().preprocess(batch)["X"]
            return {"X": made / made.max()}

    refused(Normalizing, "input 'X' of an example is another alone than beside the others")


@pytest.mark.parametrize(
    "act", [raising(ValueError("broken")), lambda self, outputs: {}, lambda self, outputs: {"label": 1, "p": 2}]
)
def test_golden_rows_that_cannot_be_handled_refuse_the_version(act):
    refused(Plain, "it fails on what the model answers to its golden rows", postprocess=act)


def test_a_model_that_fails_on_the_examples_is_named():
    def fussy(tensors):
        if (tensors["X"] == 5).any():
            raise ModelFailed("no fives")
        return {"P": np.tile([[0.5, 0.5]], (len(tensors["X"]), 1))}

    class Exemplary(Plain):
        examples = ({"x": 5.0},)

    with pytest.raises(HandlerInvalid, match="example 0 has no prediction: no fives"):
        start(Exemplary, model_of("4", fussy))


def test_the_context_says_all_about_the_version():
    contexts = []
    model = model_of("4")
    start(type("Made", (Plain,), {"initialize": lambda self, context: contexts.append(context)}), model)
    (context,) = contexts
    assert (context.model, context.version, context.digest) == (model.name, "4", model.digest)
    assert (context.inputs, context.outputs, context.event) == (model.inputs, model.outputs, COLUMNS)
    with pytest.raises(AttributeError):
        context.version = "5"
