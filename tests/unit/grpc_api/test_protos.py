"""The messages and stubs are what the protos say, and the protos are what clients know."""

from app.grpc_api import grpc_predict_v2_pb2, prediction_pb2
from app.grpc_api.generate import PACKAGE, ROOT, generate


def test_what_is_generated_is_what_the_protos_say_now(tmp_path):
    """If this fails: `make protos`."""
    generate(tmp_path)
    written = {path.name: path.read_text() for path in (tmp_path / PACKAGE.relative_to(ROOT)).iterdir()}
    assert written == {path.name: path.read_text() for path in PACKAGE.glob("*_pb2*.py*")}


def fields_of(message):
    return {field.number: field.name for field in message.DESCRIPTOR.fields}


def test_the_prediction_messages_have_the_fields_that_clients_know():
    known = {
        "PredictRequest": {1: "features"},
        "PredictResponse": {1: "prediction", 2: "probabilities", 3: "model_version"},
        "BatchPredictRequest": {1: "instances"},
        "BatchPredictResponse": {1: "predictions", 2: "probabilities"},
        "Probabilities": {1: "values"},
        "HealthRequest": {},
        "HealthResponse": {1: "status", 2: "model_loaded"},
    }
    assert {name: fields_of(getattr(prediction_pb2, name)) for name in known} == known


def test_what_streams_carry_is_the_plain_messages_with_more_to_them():
    for name in ("PredictRequest", "PredictResponse"):
        plain, streamed = (fields_of(getattr(prediction_pb2, prefix + name)) for prefix in ("", "Streamed"))
        assert plain.items() <= streamed.items()


def test_the_inference_messages_have_the_numbers_of_the_protocol():
    v2 = grpc_predict_v2_pb2
    assert v2.DESCRIPTOR.package == "inference"
    assert fields_of(v2.ModelInferRequest) == {
        1: "model_name", 2: "model_version", 3: "id", 4: "parameters", 5: "inputs", 6: "outputs",
        7: "raw_input_contents",
    }  # fmt: skip
    assert fields_of(v2.ModelInferResponse) == {
        1: "model_name", 2: "model_version", 3: "id", 4: "parameters", 5: "outputs", 6: "raw_output_contents"
    }  # fmt: skip
    assert fields_of(v2.InferTensorContents) == {
        1: "bool_contents", 2: "int_contents", 3: "int64_contents", 4: "uint_contents", 5: "uint64_contents",
        6: "fp32_contents", 7: "fp64_contents", 8: "bytes_contents",
    }  # fmt: skip
    tensor = {1: "name", 2: "datatype", 3: "shape", 4: "parameters", 5: "contents"}
    assert fields_of(v2.ModelInferRequest.InferInputTensor) == tensor
    assert fields_of(v2.ModelInferResponse.InferOutputTensor) == tensor
    assert list(v2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name) == [
        "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"
    ]  # fmt: skip
