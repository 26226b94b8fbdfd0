"""Tensors of the Open Inference Protocol: both forms say the same, and nothing that is not what it says gets in."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.grpc_api import grpc_predict_v2_pb2 as v2
from app.serving.datatypes import BYTES, NUMBERS, Most
from app.serving.grpc_tensors import inputs_of, respond
from app.serving.refusals import BadRequest

MOST = Most(2**31, 2**31)
DTYPES = st.sampled_from([*NUMBERS.values()])
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)
TENSORS = st.tuples(DTYPES, SHAPES).flatmap(lambda kind: arrays.arrays(*kind)) | SHAPES.flatmap(
    lambda shape: arrays.arrays(object, shape, elements=st.binary(max_size=5), fill=st.nothing())
)


def sent(outputs, *, raw):
    """A request whose inputs are what an answer's outputs were."""
    response = v2.ModelInferResponse()
    respond(response, outputs, raw=raw)
    inputs = [
        v2.ModelInferRequest.InferInputTensor(name=o.name, datatype=o.datatype, shape=o.shape,
                                              contents=None if raw else o.contents)
        for o in response.outputs
    ]  # fmt: skip
    request = v2.ModelInferRequest(inputs=inputs, raw_input_contents=response.raw_output_contents)
    return v2.ModelInferRequest.FromString(request.SerializeToString())


def tensor(name="x", datatype="FP32", shape=(1,), **contents):
    filled = v2.InferTensorContents(**contents) if contents else None
    return v2.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape, contents=filled)


@given(st.lists(TENSORS, min_size=1, max_size=3), st.booleans())
def test_what_is_written_in_either_form_is_read_again(tensors, raw):
    assume(raw or not any(array.dtype == np.float16 for array in tensors))
    outputs = {f"t{at}": array for at, array in enumerate(tensors)}
    inputs = inputs_of(sent(outputs, raw=raw), MOST)
    assert list(inputs) == list(outputs)
    for name, array in outputs.items():
        assert inputs[name].dtype == array.dtype
        np.testing.assert_array_equal(inputs[name], array)


def test_text_is_written_as_its_utf_8():
    inputs = inputs_of(sent({"plan": np.array(["basic", "prémium"])}, raw=True), MOST)
    assert inputs["plan"].tolist() == [b"basic", "prémium".encode()]


MISTAKES = [
    ({"inputs": []}, "inputs: there are none"),
    ({"inputs": [tensor(), tensor()]}, r"inputs\[0\] \('x'\): fp32_contents has 0 elements, shape \[1\] is 1"),
    (
        {"inputs": [tensor(fp32_contents=[1]), tensor(fp32_contents=[1])]},
        r"inputs\[1\] \('x'\): there is another of this name",
    ),
    ({"inputs": [tensor(datatype="FP8")]}, "datatype: 'FP8' is none of BOOL"),
    ({"inputs": [tensor(datatype="")]}, "datatype: '' is none of"),
    ({"inputs": [tensor(datatype="FP16", fp32_contents=[1])]}, "FP16 comes in raw_input_contents only"),
    ({"inputs": [tensor(shape=[])]}, r"shape: \[\]"),
    ({"inputs": [tensor(shape=[-1])]}, r"shape: \[-1\]"),
    ({"inputs": [tensor(shape=[0, 2**62])]}, r"shape: \[0, "),
    ({"inputs": [tensor(shape=[2**62, 2**62], fp32_contents=[1])]}, r"shape: \[4611686018427387904, "),
    ({"inputs": [tensor(shape=[1] * 33, fp32_contents=[1])]}, "shape"),
    ({"inputs": [tensor(shape=[2], fp32_contents=[1])]}, r"has 1 elements, shape \[2\] is 2"),
    ({"inputs": [tensor(fp64_contents=[1])]}, "contents has fp64_contents, FP32 is fp32_contents"),
    ({"inputs": [tensor(fp32_contents=[1], fp64_contents=[1])]}, "contents has fp32_contents, fp64_contents"),
    ({"inputs": [tensor(datatype="INT8", int_contents=[128])]}, "INT8 is -128 to 127"),
    ({"inputs": [tensor(datatype="UINT16", uint_contents=[70_000])]}, "UINT16 is 0 to 65535"),
    ({"inputs": [tensor(fp32_contents=[1])], "raw_input_contents": [b"0000"]}, "exclude each other"),
    ({"inputs": [tensor()], "raw_input_contents": [b"0000", b"0000"]}, "2 of them for 1 inputs"),
    ({"inputs": [tensor()], "raw_input_contents": [b"000"]}, r"raw contents of 3 bytes, shape \[1\] of FP32 is 4"),
    ({"inputs": [tensor(shape=[2**30])], "raw_input_contents": [b"000"]}, r"raw contents of 3 bytes, shape \[1073"),
    ({"inputs": [tensor(datatype=BYTES)], "raw_input_contents": [b"\x05\0\0"]}, "raw contents of 3 bytes are not 1"),
    ({"inputs": [tensor(datatype=BYTES)], "raw_input_contents": [b"\xff\xff\xff\xff"]}, "are not 1 elements"),
    ({"inputs": [tensor(datatype=BYTES)], "raw_input_contents": [b"\0\0\0\0" * 2]}, "are not 1 elements"),
    ({"inputs": [tensor(datatype=BYTES, shape=[2**30])], "raw_input_contents": [b"\0\0\0\0"]}, "are not 1073"),
]


@pytest.mark.parametrize(("request_fields", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_tensor_that_is_not_what_it_says_is_refused_and_named(request_fields, message):
    with pytest.raises(BadRequest, match=message):
        inputs_of(v2.ModelInferRequest(**request_fields), MOST)


def test_a_boolean_of_raw_contents_is_true_whatever_its_bits():
    request = v2.ModelInferRequest(inputs=[tensor(datatype="BOOL", shape=[3])], raw_input_contents=[b"\0\x01\xff"])
    assert inputs_of(request, MOST)["x"].tolist() == [False, True, True]


@given(
    st.lists(
        st.builds(
            tensor, st.text(max_size=3), st.sampled_from([*NUMBERS, BYTES]),
            st.lists(st.integers(-2, 4) | st.integers(-(2**63), 2**63 - 1), max_size=3),
        ),
        max_size=3,
    ),
    st.lists(st.binary(max_size=40), max_size=3),
)  # fmt: skip
def test_whatever_is_sent_is_read_or_refused_by_name(inputs, raw):
    request = v2.ModelInferRequest(inputs=inputs, raw_input_contents=raw)
    with suppress(BadRequest):
        read = inputs_of(request, MOST)
        assert [array.shape for array in read.values()] == [tuple(item.shape) for item in inputs]


@pytest.mark.parametrize("shape", [[11], [10, 7], [1, 1, 61]])
def test_more_rows_or_elements_than_are_taken_are_refused_before_they_are_read(shape):
    request = v2.ModelInferRequest(inputs=[tensor(datatype="INT8", shape=shape)], raw_input_contents=[b""])
    with pytest.raises(BadRequest, match=r"inputs\[0\] \('x'\): ") as refused:
        inputs_of(request, Most(10, 6))
    assert refused.value.too_large
