"""Writes the messages and stubs of this package from `schemas/grpc`: `make protos`.

The protos are compiled as if they lay here, so that what is generated imports itself as part of this package. The
compiler is the one that the lock file pins; a test holds what is here against what it writes.
"""

import sys
from pathlib import Path

PACKAGE = Path(__file__).parent
ROOT = PACKAGE.parents[1]
PROTOS = ROOT / "schemas" / "grpc"


def generate(into: Path) -> None:
    """Write app/grpc_api/*_pb2*.py* under `into`. Raises RuntimeError if the compiler refuses."""
    from grpc_tools import protoc  # noqa: PLC0415 - a development dependency

    here = PACKAGE.relative_to(ROOT).as_posix()
    names = sorted(f"{here}/{proto.name}" for proto in PROTOS.glob("*.proto"))
    outputs = [f"--{kind}_out={into}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{here}={PROTOS}", *outputs, *names]) != 0:
        raise RuntimeError(f"protoc refused {', '.join(names)}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
