"""`inference.GRPCInferenceService`: the Open Inference Protocol, version 2."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version as installed_version

from app.grpc_api import grpc_predict_v2_pb2 as v2
from app.serving.core import OnlineCore
from app.serving.datatypes import most_of
from app.serving.grpc_calls import Call, Unary, read, rejected
from app.serving.grpc_tensors import inputs_of, respond
from app.serving.refusals import BadRequest, NotFound
from app.serving.tensors import KEY, asked_by_tensors, metadata_of, tensors_of

SERVICE = v2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
PACKAGE = "kafka-inference-worker"
PLATFORM = "onnx_onnxruntime"
PUBLIC = frozenset({"ServerLive", "ServerReady", "ModelReady", "ServerMetadata"})


class InferenceService:
    """Its methods, over the cores of models by name.

    ending: set when the server is about to end; it is not ready then.
    """

    def __init__(self, cores: Mapping[str, OnlineCore], ending: asyncio.Event) -> None:
        self._cores, self._ending = cores, ending
        self.unary: dict[str, Unary] = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.model_infer,
        }

    async def server_live(self, body: bytes, _call: Call) -> bytes:
        """It lives as long as it answers."""
        read(v2.ServerLiveRequest, body)
        return v2.ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, body: bytes, _call: Call) -> bytes:
        """Whether every model answers."""
        read(v2.ServerReadyRequest, body)
        ready = not self._ending.is_set() and all(core.ready for core in self._cores.values())
        return v2.ServerReadyResponse(ready=ready).SerializeToString()

    async def model_ready(self, body: bytes, _call: Call) -> bytes:
        """Whether this model, or this version of it, answers. A model or version that is not there is not ready."""
        request = read(v2.ModelReadyRequest, body)
        core = self._cores.get(request.name)
        ready = core is not None and core.ready and not self._ending.is_set()
        if ready and core is not None and request.version:
            ready = request.version in core.in_force.versions
        return v2.ModelReadyResponse(ready=ready).SerializeToString()

    async def server_metadata(self, body: bytes, _call: Call) -> bytes:
        """Who serves."""
        read(v2.ServerMetadataRequest, body)
        return v2.ServerMetadataResponse(name=PACKAGE, version=installed_version(PACKAGE)).SerializeToString()

    async def model_metadata(self, body: bytes, _call: Call) -> bytes:
        """Which tensors a model takes and gives."""
        request = read(v2.ModelMetadataRequest, body)
        core = self._core(request.name)
        described_of = metadata_of(core.in_force, request.version or None)
        response = v2.ModelMetadataResponse(name=core.model, versions=core.in_force.versions, platform=PLATFORM)
        for described, into in zip(described_of, (response.inputs, response.outputs), strict=True):
            for tensor in described:
                into.add(**{name: tensor[name] for name in ("name", "datatype", "shape")})
        return response.SerializeToString()

    async def model_infer(self, body: bytes, call: Call) -> bytes:
        """Rows as tensors. Raises BadRequest naming the tensor, or the first row that cannot be predicted."""
        request = read(v2.ModelInferRequest, body)
        core = self._core(request.model_name)
        version, in_force = request.model_version or None, core.in_force
        most = most_of(in_force, core.policy.most_request_rows)
        question = asked_by_tensors(inputs_of(request, most), in_force, most, version=version, within_s=call.within_s)
        if question.keys is None and (key := _key(request, call)) is not None:
            question = replace(question, keys=[key] * len(question))
        answers = await core.ask(question)
        if answers.rejected:
            raise rejected(answers)
        outputs = tensors_of(answers)
        for output in request.outputs:
            if output.name not in outputs:
                raise BadRequest(f"outputs: {output.name[:64]!r} is none of {', '.join(outputs)}", field="outputs")
        if request.outputs:
            outputs = {output.name: outputs[output.name] for output in request.outputs}
        versions = dict.fromkeys(source.version for source in call.answered(answers))
        response = v2.ModelInferResponse(model_name=core.model, model_version=",".join(versions), id=request.id)
        respond(response, outputs, raw=bool(request.raw_input_contents))
        return response.SerializeToString()

    def _core(self, name: str) -> OnlineCore:
        core = self._cores.get(name)
        if core is None:
            raise NotFound(f"there is no model {name[:64]!r}, there are {', '.join(self._cores)}")
        return core


def _key(request: v2.ModelInferRequest, call: Call) -> str | None:
    """Of all rows: the parameter `key`, or else the call's. Raises BadRequest."""
    if KEY not in request.parameters:
        return call.key
    if request.parameters[KEY].WhichOneof("parameter_choice") != "string_param":
        raise BadRequest("parameters: key has to be a string_param", field="parameters")
    return request.parameters[KEY].string_param
