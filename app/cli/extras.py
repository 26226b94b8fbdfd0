"""Commands whose libraries are an extra of the package, and are loaded when the command is given."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import BadSettings


@contextmanager
def needing_extra(name: str) -> Iterator[None]:
    """Around the imports that need this extra. Raises BadSettings if one of its libraries is not installed."""
    try:
        yield
    except ModuleNotFoundError as exc:
        raise BadSettings(f"{exc.name} is not installed: pip install 'kafka-inference-worker[{name}]'") from exc
