"""The messages of `prediction.PredictionService`, made from their description here and not from the worker's stubs.

A black box must not agree with the worker by sharing its mistakes. The pool is our own, so that both may live
in one process.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "prediction"
SERVICE = f"{PACKAGE}.PredictionService"

_Field = descriptor_pb2.FieldDescriptorProto

# name, number, type (a scalar's, or the name of a message here), repeated
_FIELDS: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "PredictRequest": (("features", 1, "float", True),),
    "PredictResponse": (
        ("prediction", 1, "int32", False),
        ("probabilities", 2, "float", True),
        ("model_version", 3, "string", False),
    ),
    "BatchPredictRequest": (("instances", 1, "PredictRequest", True),),
    "BatchPredictResponse": (("predictions", 1, "int32", True), ("probabilities", 2, "Probabilities", True)),
    "Probabilities": (("values", 1, "float", True),),
}
_SCALARS = {"float": _Field.TYPE_FLOAT, "int32": _Field.TYPE_INT32, "string": _Field.TYPE_STRING}


def message_classes() -> dict[str, Any]:
    """Classes by the name of their message."""
    file = descriptor_pb2.FileDescriptorProto(name="loadgen_prediction.proto", package=PACKAGE, syntax="proto3")
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            field = described.field.add(name=name, number=number)
            field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            field.type = _SCALARS.get(kind, _Field.TYPE_MESSAGE)
            if kind not in _SCALARS:
                field.type_name = f".{PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())  # type: ignore[no-untyped-call]
    found = [pool.FindMessageTypeByName(f"{PACKAGE}.{name}") for name in _FIELDS]  # type: ignore[no-untyped-call]
    return dict(zip(_FIELDS, map(message_factory.GetMessageClass, found), strict=True))
