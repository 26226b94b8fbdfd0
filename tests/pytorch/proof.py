"""PyTorch to ONNX, with PyTorch itself: `make test-pytorch`, in an environment of its own.

Not in `make test`: for Linux, PyPI has PyTorch as a CUDA build only, more than 5 GB with what it needs.
"""

import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from app.errors import BadSettings, ModelInvalid
from app.models.adopt import AdoptPolicy, ModelSpec, adopt_model
from app.models.held_out import HeldOut
from app.models.model_store import open_store
from app.models.runtime import RuntimePolicy, load_model
from app.models.sandbox import GIB, SandboxPolicy, Source
from app.specs import InputSpec, NumberFeature, ProbabilitiesOutput, TensorFeature, ValueOutput

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PIXELS = InputSpec(name="pixels", features=(TensorFeature(field="pixels", length=64),), shape=(1, 8, 8))
AGE = InputSpec(name="age", features=(NumberFeature(field="age"),))
DIGIT = ProbabilitiesOutput(name="probabilities", classes=tuple(range(10)), fields={"prediction": "class"})
AMOUNT = ValueOutput(name="amount", fields={"amount": "value"})
POLICY = AdoptPolicy(tolerance=1e-5)


class Picture(nn.Module):
    """A small convolutional classifier of 8x8 pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10), nn.Softmax(1)
        )

    def forward(self, pixels):
        return self.steps(pixels)


class Both(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.picture = Picture()

    def forward(self, pixels, age):
        probabilities = self.picture(pixels)
        return probabilities, probabilities[:, :1] * age


def exported(path, module, *inputs, free=True):
    torch.manual_seed(0)
    rows = torch.export.Dim("rows") if free else None
    shapes = tuple({0: rows} for _ in inputs) if free else None
    torch.export.save(torch.export.export(module.eval(), inputs, dynamic_shapes=shapes), path)
    return Source(path, "pytorch", trusted=True)


def adopt(store, source, inputs, outputs, tensors, policy=POLICY):
    spec = ModelSpec(data="random", event_schema="E", prediction_schema="P", inputs=inputs, outputs=outputs)
    return adopt_model(source, spec, HeldOut(tensors), store, "torch", policy=policy, at=NOW, who="me")


@pytest.fixture
def store(tmp_path):
    return open_store("store", tmp_path, create=True)


@pytest.fixture
def pictures():
    return np.random.default_rng(0).random((300, 1, 8, 8), np.float32)


@pytest.fixture
def picture(tmp_path):
    return exported(tmp_path / "net.pt2", Picture(), torch.zeros(2, 1, 8, 8))


def test_its_onnx_twin_answers_as_the_original_does(store, picture, pictures):
    done = adopt(store, picture, (PIXELS,), (DIGIT,), {"pixels": pictures})
    assert done.agreement.max_difference <= 1e-5
    assert done.agreement.same_class == 1.0
    assert "--trust-pickle was given" in done.manifest.training["trusted_input"]
    loaded = load_model(store.fetch("torch", "1"), RuntimePolicy())
    assert loaded.run({"pixels": pictures})["probabilities"].shape == (300, 10)


def test_several_inputs_and_outputs_keep_their_names(store, pictures, tmp_path):
    source = exported(tmp_path / "both.pt2", Both(), torch.zeros(2, 1, 8, 8), torch.zeros(2, 1))
    ages = np.random.default_rng(1).random((300, 1), np.float32)
    done = adopt(store, source, (PIXELS, AGE), (DIGIT, AMOUNT), {"pixels": pictures, "age": ages})
    assert done.agreement.max_difference <= 1e-5


def test_another_number_of_inputs_is_refused(store, picture, pictures):
    ages = np.zeros((300, 1), np.float32)
    with pytest.raises(ModelInvalid, match="takes 1 tensors and gives 1, the spec has 2 and 1"):
        adopt(store, picture, (PIXELS, AGE), (DIGIT,), {"pixels": pictures, "age": ages})


def test_a_program_for_a_fixed_number_of_rows_is_refused(store, pictures, tmp_path):
    source = exported(tmp_path / "fixed.pt2", Picture(), torch.zeros(300, 1, 8, 8), free=False)
    with pytest.raises(ModelInvalid, match="takes exactly 300 rows, it must take any number"):
        adopt(store, source, (PIXELS,), (DIGIT,), {"pixels": pictures})
    assert store.models() == []


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x05\x06" + b"\x00" * 18])
def test_a_broken_archive_is_refused(content, store, pictures, tmp_path):
    (tmp_path / "broken.pt2").write_bytes(content)
    with pytest.raises(ModelInvalid, match=r"broken\.pt2: "):
        adopt(
            store, Source(tmp_path / "broken.pt2", "pytorch", trusted=True), (PIXELS,), (DIGIT,), {"pixels": pictures}
        )


def test_a_truncated_archive_is_refused(store, picture, pictures):
    content = picture.path.read_bytes()
    picture.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelInvalid, match=r"net\.pt2: "):
        adopt(store, picture, (PIXELS,), (DIGIT,), {"pixels": pictures})


def test_an_archive_nobody_vouches_for_is_not_opened(store, picture, pictures):
    assert zipfile.is_zipfile(picture.path)
    with pytest.raises(BadSettings, match="only with --trust-pickle"):
        adopt(store, Source(picture.path, "pytorch"), (PIXELS,), (DIGIT,), {"pixels": pictures})


def test_too_little_memory_is_an_error_and_no_version(store, picture, pictures):
    little = AdoptPolicy(sandbox=SandboxPolicy(memory_bytes=GIB))
    with pytest.raises(ModelInvalid, match=r"net\.pt2: "):
        adopt(store, picture, (PIXELS,), (DIGIT,), {"pixels": pictures}, little)
    assert store.models() == []


def test_this_file_is_where_the_make_target_looks_for_it():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    assert "tests/pytorch/proof.py" in makefile
