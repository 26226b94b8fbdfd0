"""`python -m deploy.grafana` writes deploy/grafana/dashboards; `--check` only compares, and names what differs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.grafana import drift, errors, lag, latency, models, overview, resources, serving
from deploy.grafana.board import files

FOLDER = Path(__file__).parent / "dashboards"
BOARDS = tuple(module.BOARD for module in (overview, latency, lag, models, drift, errors, serving, resources))


def stale() -> list[str]:
    """Files that are not what the code says, or that no code writes."""
    wanted = files(BOARDS)
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def main(arguments: Sequence[str]) -> int:
    """0 if all is well; with --check 1 if not."""
    if "--check" in arguments:
        wrong = stale()
        if wrong:
            print(f"{', '.join(wrong)}: not what the code says; run `python -m deploy.grafana`", file=sys.stderr)  # noqa: T201
        return 1 if wrong else 0
    wanted = files(BOARDS)
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, content in wanted.items():
        (FOLDER / name).write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
