"""Execution providers: what is asked for is there and used, or the start is refused with what there is."""

import numpy as np
import onnxruntime as ort
import pytest

from app.errors import BadSettings
from app.models.runtime import RuntimePolicy, load_model


def policy(*providers):
    return RuntimePolicy(warm_up_rows=(1,), providers=providers)


def test_a_model_says_which_provider_it_prefers(make_graph, stored):
    model = load_model(stored(make_graph()), policy("CPUExecutionProvider"))
    assert model.provider == "CPUExecutionProvider"
    assert model.run({"X": np.array([[3]], np.float32)})["probabilities"].tolist() == [[0.25, 0.75]]


@pytest.mark.parametrize("names", [("CUDAExecutionProvider",), ("cpu",), ("CPUExecutionProvider", "Nonsense")])
def test_a_provider_this_build_lacks_is_refused_with_those_it_has(names, make_graph, stored):
    offered = ", ".join(ort.get_available_providers())
    complaint = f"models.providers: {names[-1]} is not in this build of ONNX Runtime .*, which offers {offered}"
    with pytest.raises(BadSettings, match=complaint):
        load_model(stored(make_graph()), policy(*names))


class Shy:
    """A session that silently left out a provider, as ONNX Runtime does when a device does not start."""

    def __init__(self, *_, **__):
        pass

    def disable_fallback(self):
        pass

    def get_providers(self):
        return ["CPUExecutionProvider"]


def test_a_provider_that_is_built_in_but_does_not_start_is_refused(make_graph, stored, monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", Shy)
    with pytest.raises(BadSettings, match=r"CUDAExecutionProvider is in this build .* but does not start here"):
        load_model(stored(make_graph()), policy("CUDAExecutionProvider", "CPUExecutionProvider"))
