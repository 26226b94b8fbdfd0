"""A version that somebody named, in the place of a rollout page."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.records import IntArray


@dataclass(frozen=True, slots=True)
class OneVersion:
    """A `ports.ModelChooser`. Revision 0: no rollout decided."""

    version: str
    name: str = "requested"
    strategy: str = "requested"
    revision: int = 0
    previous: str | None = None

    @property
    def arms(self) -> Sequence["OneVersion"]:
        """It is its own only arm."""
        return (self,)

    @property
    def versions(self) -> Sequence[str]:
        """The one."""
        return (self.version,)

    def choose(self, keys: Sequence[bytes | None]) -> IntArray | None:  # noqa: ARG002 - the protocol's
        """It answers all."""
        return None
