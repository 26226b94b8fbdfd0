"""Writes docs/CONFIG.md and docs/METRICS.md from the code; `--check` only compares, for `make check`."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app.observe.audit_metrics import audit_metrics_page
from app.observe.lag_metrics import lag_metrics_page
from app.observe.metrics import metrics_page
from app.observe.monitor_metrics import monitor_metrics_page
from app.settings.pipelines import Pipeline
from app.settings.root import ALIASES, Settings

FOLDER = Path(__file__).parent

_NAMES = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    Path: "path",
    SecretStr: "secret",  # pragma: allowlist secret
    type(None): "null",
}

HEADER = """# Settings

Generated from `app/settings/` by `make docs`; `make check` compares.

A YAML file given with `--config`, then the environment, which wins: `INFERENCE_` and the path with `__`, for example
`INFERENCE_KAFKA__BOOTSTRAP_SERVERS`; lists such as `INFERENCE_PIPELINES` as JSON. Unknown keys and unknown
`INFERENCE_` names are errors. Relative paths written in the file are relative to the file; defaults and the
environment's to the working directory. Secrets can be given as `…_file`, a path whose content is the secret.
"""


def config_page() -> str:
    """Every setting: name, type, default, meaning."""
    lines = [HEADER]
    aliases = ", ".join(f"`{alias}` for `{name}`" for alias, name in ALIASES.items())
    lines.append(f"Also understood: {aliases}.\n")
    for name, info in Settings.model_fields.items():
        kind = Pipeline if name == "pipelines" else info.annotation
        title = "pipelines[]" if name == "pipelines" else name
        lines += [f"## {title}", "", (kind.__doc__ or "").strip(), ""]
        lines += ["| setting | type | default | meaning |", "|---|---|---|---|"]
        lines += _rows(kind, title)
        lines.append("")
    return "\n".join(lines)


def _rows(section: Any, prefix: str) -> list[str]:
    rows = []
    for name, info in section.model_fields.items():
        path = f"{prefix}.{name}"
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            rows += _rows(kind, path)
        else:
            rows.append(f"| `{path}` | {_type(info)} | {_default(info)} | {info.description or ''} |")
    return rows


def _type(info: FieldInfo) -> str:
    return _name(info.annotation)


def _name(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        return _name(get_args(kind)[0])
    if kind in _NAMES:
        return _NAMES[kind]
    if get_origin(kind) is Literal:
        return ", ".join(f"`{item}`" for item in get_args(kind))
    members = list(dict.fromkeys(_name(item) for item in get_args(kind) if item not in {type(None), ...}))
    if get_origin(kind) is tuple:
        return f"list of {members[0]}s"
    return "map" if get_origin(kind) is dict else " or ".join(members)


def _default(info: FieldInfo) -> str:
    if info.default_factory is not None:
        return "`{}`"
    if info.default is PydanticUndefined:
        return "required"
    if info.default is None or isinstance(info.default, bool):
        return {None: "`null`", True: "`true`", False: "`false`"}[info.default]
    return f"`{info.default}`"


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check name those that differ."""
    metrics = "\n".join((metrics_page(), monitor_metrics_page(), audit_metrics_page(), lag_metrics_page()))
    pages = {"CONFIG.md": config_page(), "METRICS.md": metrics}
    if "--check" not in arguments:
        for name, text in pages.items():
            (FOLDER / name).write_text(text, encoding="utf-8")
        return 0
    stale = [name for name, text in pages.items() if not _same(FOLDER / name, text)]
    if stale:
        print(f"docs/{', docs/'.join(stale)}: not what the code says; run `make docs`", file=sys.stderr)
    return 1 if stale else 0


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
