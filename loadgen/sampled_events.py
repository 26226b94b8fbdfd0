"""Sampled predictions put beside the raw events they answer, for the score check."""

import io
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import fastavro
import fastavro.read

from loadgen.ledger import Outcomes
from loadgen.schema_source import SchemaSource
from loadgen.schemas import AvroSchema
from loadgen.score_check import Sampled

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def sampled(
    samples: list[tuple[Outcomes, Any]],
    kept: Mapping[tuple[int, int], bytes],
    schemas: SchemaSource,
    reader: AvroSchema,
) -> list[Sampled]:
    """Return the predictions whose event was kept and can be read with today's schema.

    samples: places and columns of sampled predictions. kept: event values by (lane, offset).
    """
    found = []
    for outcomes, table in samples:
        for row, columns in enumerate(table.to_pylist()):
            value = kept.get((int(outcomes.lane[row]), int(outcomes.source_offset[row])))
            event = read_event(value, schemas, reader) if value is not None else None
            if event is None:
                continue
            scores = columns.get("probabilities")
            found.append(
                Sampled(
                    place=outcomes.place(row),
                    event=event,
                    event_time_ms=columns["event_time"],
                    prediction=columns["prediction"],
                    probabilities=scores if scores is not None else [columns["probability"]],
                    model=columns["model_name"],
                    version=columns["model_version"],
                    digest=columns["model_digest"],
                )
            )
    return found


def read_event(value: bytes, schemas: SchemaSource, reader: AvroSchema) -> dict[str, Any] | None:
    """One event as today's schema has it, event_time in milliseconds; None if it is no event."""
    wire_format = schemas.wire_format
    if not value.startswith(wire_format.marker) or len(value) < wire_format.header_size:
        return None
    writer = schemas.schema(value[len(wire_format.marker) : wire_format.header_size])
    if writer is None:
        return None
    datum = io.BytesIO(value[wire_format.header_size :])
    try:
        event: Any = fastavro.schemaless_reader(datum, writer.parsed, reader.parsed)
    except (ValueError, EOFError, IndexError, KeyError, OverflowError, fastavro.read.SchemaResolutionError):
        return None
    if isinstance(event.get("event_time"), datetime):
        event["event_time"] = (event["event_time"] - EPOCH) // MILLISECOND
    found: dict[str, Any] = event
    return found
