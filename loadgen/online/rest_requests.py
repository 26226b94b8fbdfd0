"""Bodies of REST requests, and what a whole answer to them is."""

from typing import Any

import orjson

from loadgen.errors import BadOption
from loadgen.online.instances import Ring, requests_in
from loadgen.online.target import ANSWERED, BAD_ANSWER, Reply

STYLES = ("fields", "vectors")


class RestRequests:
    """Every body there is, made beforehand: POST to `path`.

    style "fields": features by their names, as the schema has them. "vectors": numbers in the manifest's order.
    """

    def __init__(self, ring: Ring, *, rows: int, style: str) -> None:
        if style not in STYLES:
            raise BadOption(f"--as: {style!r} is not one of {', '.join(STYLES)}")
        self.rows = rows
        self.path = "/predict" if rows == 1 else "/predict/batch"
        # orjson writes NaN as null, which is what says missing in JSON
        features = ring.fields.to_pylist() if style == "fields" else ring.vectors.tolist()
        instances = [{"features": of_one, "key": key} for of_one, key in zip(features, ring.keys, strict=True)]
        self._bodies = [
            orjson.dumps(
                instances[number] if rows == 1 else {"instances": [instances[i] for i in ring.rows(number, rows)]}
            )
            for number in range(requests_in(ring, rows))
        ]

    def body(self, number: int) -> bytes:
        """The JSON of request `number`."""
        return self._bodies[number % len(self._bodies)]

    def reply(self, status: int, body: bytes) -> Reply:
        """What an answer means: there must be a prediction for every instance."""
        if status != 200:
            return Reply(str(status))
        try:
            page = orjson.loads(body)
        except orjson.JSONDecodeError:
            return Reply(BAD_ANSWER)
        if not isinstance(page, dict) or not self._is_whole(page):
            return Reply(BAD_ANSWER)
        version = page.get("model_version")
        return Reply(ANSWERED, version if isinstance(version, str) else None)

    def _is_whole(self, page: dict[str, Any]) -> bool:
        if self.rows == 1:
            return page.get("prediction") is not None
        found = page.get("predictions")
        return isinstance(found, list) and len(found) == self.rows and not page.get("errors")
