"""A result file for people: Markdown, and one HTML page that needs nothing beside it."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadgen import plots
from loadgen.errors import BadOption
from loadgen.verdict import FORMAT

Page = Mapping[str, Any]
Row = tuple[str, str]

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.2rem .8rem .2rem
0;text-align:left;vertical-align:top} td+td{font-variant-numeric:tabular-nums}img{max-width:100%}
.pass{color:#2a7f62}.fail{color:#b5322f}code{background:#f3f3f3;padding:0 .2rem}
"""


def read_result(path: Path) -> Page:
    """Return a result file. Raises BadOption if it is none."""
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadOption(f"{path}: {error}") from error
    if not isinstance(page, dict) or page.get("format") != FORMAT or "verified" not in page:
        raise BadOption(f"{path} is not a result of loadgen (format {FORMAT})")
    return page


def sections(page: Page) -> list[tuple[str, list[Row]]]:
    """Headings, each with rows of name and value."""
    found = []
    if page["produced"]:
        found.append(("Sent", _sent(page["produced"])))
    if page["verified"]:
        found += _verified(page["verified"])
    return found


def _sent(produced: Page) -> list[Row]:
    rows = [
        ("topic", str(produced["topic"])),
        ("events", f"{produced['events']:,}"),
        ("seconds", f"{produced['seconds']:.2f}"),
        ("events per second", f"{produced['events_per_s']:,.0f}"),
        ("greatest lateness of the sender", f"{produced['behind_max_ms']:.1f} ms"),
    ]
    if produced["poison"]:
        rows.append(("poison", _counts(produced["poison"])))
    return rows


def _verified(verdict: Page) -> list[tuple[str, list[Row]]]:
    outcome = [
        ("pipeline", f"{verdict['pipeline']}, judged as {verdict['delivery'].replace('_', ' ')}"),
        ("events", f"{verdict['inputs']:,}"),
        ("predictions", f"{verdict['predictions']:,}"),
        ("dead letters", _counts(verdict["dead_letters"]) or "0"),
        ("tombstones skipped", f"{verdict['tombstones']:,}"),
        ("predictions per second", f"{verdict['predictions_per_s']:,.0f}"),
    ]
    if verdict["before_window"]:
        outcome.append(("outcomes of earlier events", f"{verdict['before_window']:,}, not judged"))
    if verdict["timed_out"]:
        outcome.append(("time", "ran out before the end was stable"))
    found = [("Outcome", outcome)]
    if verdict["latency"]:
        found.append((_latency_heading(verdict["latency"]), _latency(verdict["latency"])))
    if quality := _quality(verdict):
        found.append(("Answers", quality))
    return found


def _latency_heading(latency: Page) -> str:
    to = "receipt by a reader" if latency["basis"] == "received" else "the prediction's record timestamp"
    return f"Latency, intended send to {to}"


def _latency(latency: Page) -> list[Row]:
    names = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p99_9": "p99.9", "max": "max"}
    rows = [(label, f"{latency[name]:,.2f} ms") for name, label in names.items()]
    rows.append(("measured", f"{latency['count']:,} predictions"))
    if latency["negative"]:
        rows.append(("below zero, counted as zero", f"{latency['negative']:,}"))
    return rows


def _quality(verdict: Page) -> list[Row]:
    rows = []
    if verdict["accuracy"] and verdict["accuracy"]["known"]:
        accuracy = verdict["accuracy"]
        rows.append(("accuracy", f"{accuracy['share']:.4f} against the known truth of {accuracy['known']:,}"))
    if verdict["score"]:
        score = verdict["score"]
        rows.append(("scored anew", f"{score['checked']:,}, greatest difference {score['worst']:.2g}"))
    for answer in verdict["answers"]:
        name = f"{answer['model']} {answer['version']} ({answer['answered_by']}, {answer['digest']})"
        rows.append((name, f"{answer['predictions']:,} predictions"))
    return rows


def _counts(counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return f"{sum(counts.values()):,} ({listed})" if counts else ""


def verdict_line(page: Page) -> str:
    """Return the result in one line."""
    verdict = page["verified"]
    if verdict is None:
        return "sent, not verified"
    if verdict["passed"]:
        return "passed: every event has exactly the outcome it should have"
    return "FAILED: " + ", ".join(f"{one['count']:,} {one['kind']}" for one in verdict["violations"])


def violation_lines(page: Page) -> list[str]:
    """Each violation in words, followed by its first places."""
    lines = []
    for one in page["verified"]["violations"] if page["verified"] else []:
        lines.append(f"{one['kind']}: {one['count']:,} times; {one['meaning']}")
        lines += [
            f"  ({place['topic']}, {place['partition']}, {place['offset']}) {place['detail']}".rstrip()
            for place in one["examples"]
        ]
    return lines


def markdown(page: Page) -> str:
    """Return the report without plots."""
    lines = [f"# loadgen {page['command']}, {page['started_at']}", "", f"**{verdict_line(page)}**", ""]
    if broken := violation_lines(page):
        lines += ["```", *broken, "```", ""]
    for heading, rows in sections(page):
        lines += [f"## {heading}", "", "| | |", "|---|---|"]
        lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def html_page(page: Page) -> str:
    """Return the report with plots, in one file. What records said is escaped."""
    verdict = page["verified"]
    mood = "pass" if verdict is None or verdict["passed"] else "fail"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>loadgen report</title>",
        f"<style>{STYLE}</style>",
        f"<h1>loadgen {html.escape(page['command'])}</h1><p>{html.escape(page['started_at'])}</p>",
        f"<p class={mood}><strong>{html.escape(verdict_line(page))}</strong></p>",
    ]
    if broken := violation_lines(page):
        parts.append(f"<pre class=fail>{html.escape(chr(10).join(broken))}</pre>")
    for heading, rows in sections(page):
        parts.append(f"<h2>{html.escape(heading)}</h2>{_table(rows)}")
    parts += [
        f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(image).decode()}">'
        for name, image in _plots(verdict)
    ]
    return "\n".join([*parts, "</html>"])


def _table(rows: Sequence[Row]) -> str:
    cells = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{cells}</table>"


def _plots(verdict: Page | None) -> list[tuple[str, bytes]]:
    if not verdict or not verdict["latency"]:
        return []
    return [
        ("latency over time", plots.latency_over_time(verdict["timeline"])),
        ("throughput", plots.throughput_over_time(verdict["timeline"])),
        ("latency by percentile", plots.percentile_curve(verdict["latency"]["curve"])),
    ]
