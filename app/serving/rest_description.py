"""The OpenAPI page: what each route takes and gives, with examples, for the model that is served now."""

from typing import Any

from app.answering.event_columns import EventColumns, Position
from app.serving.in_force import InForce
from app.specs import OneHotFeature, OrdinalFeature, TensorFeature

Page = dict[str, Any]

ERRORS = {
    "400": "what was sent cannot be read", "401": "a key or a token is needed", "403": "not allowed to this caller",
    "404": "there is no such model, or version of it that answers", "409": "everything stays as it was",
    "413": "too many bytes or rows", "422": "a field is not what it has to be; the answer names it",
    "429": "too much is waiting; `Retry-After` says when to come back", "500": "the model failed",
    "503": "no model is ready", "504": "not answered in time",
}  # fmt: skip


def schemas_of(in_force: InForce | None) -> Page:
    """The components that operations refer to. in_force: None while there is no model."""
    features: Page = {"type": "object"}
    vector: Page = {"type": "array", "items": {"type": ["number", "null"]}}
    if in_force is not None:
        features, vector = _features(in_force.events), _vector(in_force.events)
    any_features = {"anyOf": [{"$ref": "#/components/schemas/Features"}, {"$ref": "#/components/schemas/Vector"}]}
    key = {"type": ["string", "null"], "maxLength": 1024, "description": "What rollouts stick to; absent: stable"}
    version = {"type": ["string", "null"], "description": "Only this version is to answer"}
    row: Page = {
        "type": "object", "required": ["features"], "additionalProperties": False,
        "properties": {"features": any_features, "key": key},
    }  # fmt: skip
    return {
        "Features": features,
        "Vector": vector,
        "Instance": row,
        "PredictRequest": row | {"properties": {**row["properties"], "version": version}},
        "BatchRequest": {
            "type": "object", "required": ["instances"], "additionalProperties": False,
            "properties": {
                "instances": {"type": "array", "items": {"$ref": "#/components/schemas/Instance"}},
                "version": version,
            },
        },
        "Prediction": _prediction(),
        "BatchResponse": {
            "type": "object", "required": ["predictions", "errors", "latency_ms", "request_id"],
            "properties": {
                "predictions": {"type": "array", "items": {"type": "object"}},
                "errors": {"type": "integer"}, "model_version": {"type": ["string", "null"]},
                "latency_ms": {"type": "number"}, "request_id": {"type": "string"},
            },
        },
        "BareError": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
        "Error": {
            "type": "object", "required": ["detail"],
            "properties": {
                "detail": {"type": "string"}, "field": {"type": ["string", "null"]}, "request_id": {"type": "string"},
            },
        },
    }  # fmt: skip


def operation(
    summary: str, *, takes: str | None = None, gives: str | None = None, codes: str = "", error: str = "Error"
) -> Page:
    """For one route. takes, gives: component schemas; codes: which of ERRORS it may answer with, and `error` how."""
    answer: Page = {"description": "answered"}
    if gives is not None:
        answer["content"] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{gives}"}}}
    told = {"application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}}}
    responses: Page = {"200": answer}
    responses |= {code: {"description": ERRORS[code], "content": told} for code in codes.split()}
    page: Page = {"summary": summary, "responses": responses}
    if takes is not None:
        schema = {"$ref": f"#/components/schemas/{takes}"}
        page["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return page


def _prediction() -> Page:
    return {
        "type": "object",
        "required": [
            "prediction", "model", "model_version", "answered_by", "rollout_revision", "latency_ms", "request_id",
        ],
        "properties": {
            "prediction": {"description": "The class, or the value of a regression"},
            "probabilities": {"type": "array", "items": {"type": "number"}},
            "confidence": {"type": "number"},
            "model": {"type": "string"}, "model_version": {"type": "string"},
            "answered_by": {"type": "string", "description": "stable, canary, an arm's name, or fallback"},
            "rollout_revision": {"type": "integer"},
            "latency_ms": {"type": "number"}, "request_id": {"type": "string"},
        },
    }  # fmt: skip


def _features(events: EventColumns) -> Page:
    required = [position.field for position in events.positions if position.feature.missing == "reject"]
    others = set(events.schema.names) - {position.field for position in events.positions}
    page: Page = {
        "type": "object",
        "description": "Fields by name. Other fields of the event may be there and are not looked at",
        "additionalProperties": False,
        "required": required,
        "properties": {position.field: _field(position, events) for position in events.positions}
        | {name: {} for name in sorted(others)},
    }
    page["example"] = {position.field: _example(position) for position in events.positions}
    return page


def _field(position: Position, events: EventColumns) -> Page:
    feature = position.feature
    nullable = feature.missing != "reject"
    if isinstance(feature, OneHotFeature | OrdinalFeature):
        return (
            {"type": "string", "enum": list(feature.categories)} if feature.unknown == "reject" else {"type": "string"}
        )
    kind = _number(position, events)
    bounds = {name: limit for name, limit in (("minimum", feature.min), ("maximum", feature.max)) if limit is not None}
    if isinstance(feature, TensorFeature):
        items = {"type": kind} | bounds
        return {"type": "array", "minItems": feature.length, "maxItems": feature.length, "items": items}
    return {"type": [kind, "null"] if nullable else kind} | bounds


def _number(position: Position, events: EventColumns) -> str:
    kind = str(events.schema.field(position.field).type)
    return "integer" if kind.startswith(("int", "uint")) else "number"


def _example(position: Position) -> object:
    feature = position.feature
    if isinstance(feature, OneHotFeature | OrdinalFeature):
        return feature.categories[0]
    low = feature.min if feature.min is not None else 0.0
    high = feature.max if feature.max is not None else max(low, 100.0)
    middle = round((low + high) / 2)
    return [middle] * feature.length if isinstance(feature, TensorFeature) else middle


def _vector(events: EventColumns) -> Page:
    example: list[object] = []
    for position in events.positions:
        value = 0 if position.categories else _example(position)
        example += value if isinstance(value, list) else [value]
    order = ", ".join(f"{position.field} ({position.width})" for position in events.positions)
    return {
        "type": "array",
        "description": f"Numbers in the manifest's order: {order}. A category is its index, null is missing",
        "minItems": events.width,
        "maxItems": events.width,
        "items": {"type": ["number", "null"]},
        "example": example,
    }
