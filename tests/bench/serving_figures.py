"""What `serving_peers` measured, as tables: requests per second at equal p99, each turn, and what is often quoted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LIMITS_MS = (10.0, 25.0, 50.0, 100.0)
PROTOCOLS = {"rest": "REST", "grpc": "gRPC"}
PLAIN = "FastAPI + scikit-learn"
OURS = {"rest": "inference-worker, `/predict`", "grpc": "inference-worker, `Predict`"}


@dataclass(frozen=True, slots=True)
class Figures:
    """One surface with so many callers. cpu_us: a request, of the server. batch_rows: a call of the model, mean."""

    label: str
    protocol: str
    batching: str
    callers: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    batch_rows: float


def most_within(turns: Iterable[Figures], p99_ms: float) -> float | None:
    """The most requests a second of these turns whose p99 is not above this; None if that of all is."""
    return max((turn.per_second for turn in turns if turn.p99_ms <= p99_ms), default=None)


def page(turns: Sequence[Figures], where: str, told: Sequence[str]) -> str:
    """Markdown. told: why who is missing is."""
    missing = "".join(f"\n\nNot measured: {why}" for why in told)
    return "\n\n".join((f"{where}{missing}", at_equal_p99(turns), by_callers(turns), quoted(turns))) + "\n"


def at_equal_p99(turns: Sequence[Figures]) -> str:
    """The most requests a second that each surface answers within a p99."""
    lines = [
        "Requests a second at equal p99: the most, of the numbers of callers below, whose p99 is within",
        "",
        "| | batching | " + " | ".join(f"{limit:g} ms" for limit in LIMITS_MS) + " |",
        "|---|---|" + "---:|" * len(LIMITS_MS),
    ]
    for (protocol, label, batching), own in by_surface(turns).items():
        cells = [_count(most_within(own, limit)) for limit in LIMITS_MS]
        lines.append(f"| {PROTOCOLS[protocol]}: {label} | {batching} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def by_callers(turns: Sequence[Figures]) -> str:
    """Every turn."""
    lines = [
        "| | batching | callers | requests/s | p50 ms | p99 ms | server CPU µs | rows a batch |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (protocol, label, batching), own in by_surface(turns).items():
        lines += [
            f"| {PROTOCOLS[protocol]}: {label} | {batching} | {turn.callers} | {turn.per_second:,.0f} "
            f"| {turn.p50_ms:.1f} | {turn.p99_ms:.1f} | {turn.cpu_us:,.0f} | {_rows(turn.batch_rows)} |"
            for turn in sorted(own, key=lambda turn: turn.callers)
        ]
    return "\n".join(lines)


def quoted(turns: Sequence[Figures]) -> str:
    """What is often said of such servers, and what was found."""
    surfaces = by_surface(turns)
    rest, grpc = (surfaces.get((protocol, OURS[protocol], "on"), []) for protocol in ("rest", "grpc"))
    off = {protocol: surfaces.get((protocol, OURS[protocol], "off"), []) for protocol in OURS}
    plain = surfaces.get(("rest", PLAIN, "none"), [])
    by_grpc, by_25 = _times(grpc, off["grpc"], 50), _times(rest, plain, 25)
    return "\n".join(
        (
            "| often quoted | found here |",
            "|---|---|",
            f"| REST: about 1,000/s at 50 to 100 ms | {PLAIN} {_best(plain, 100)}; ours {_best(rest, 100)} |",
            f"| gRPC: about 5,000/s at 10 to 30 ms | ours {_best(grpc, 30)} |",
            f"| batching: 3 to 10 times | within 50 ms: REST {_times(rest, off['rest'], 50)}, gRPC {by_grpc} |",
            f"| the aim: 3 times the plain server | within 50 ms: {_times(rest, plain, 50)}; 25 ms: {by_25} |",
        )
    )


def by_surface(turns: Iterable[Figures]) -> dict[tuple[str, str, str], list[Figures]]:
    """(protocol, label, batching) → its turns: REST before gRPC, else as measured."""
    found: dict[tuple[str, str, str], list[Figures]] = {}
    for turn in sorted(turns, key=lambda turn: list(PROTOCOLS).index(turn.protocol)):
        found.setdefault((turn.protocol, turn.label, turn.batching), []).append(turn)
    return found


def _best(turns: Sequence[Figures], p99_ms: float) -> str:
    within = [turn for turn in turns if turn.p99_ms <= p99_ms]
    if not within:
        return f"none within a p99 of {p99_ms:g} ms"
    best = max(within, key=lambda turn: turn.per_second)
    return f"{best.per_second:,.0f}/s at p50 {best.p50_ms:.1f} and p99 {best.p99_ms:.1f} ms"


def _times(turns: Sequence[Figures], others: Sequence[Figures], p99_ms: float) -> str:
    mine, theirs = most_within(turns, p99_ms), most_within(others, p99_ms)
    return "cannot be said" if not mine or not theirs else f"{mine / theirs:.1f} times"


def _count(per_second: float | None) -> str:
    return "-" if per_second is None else f"{per_second:,.0f}"


def _rows(batch_rows: float) -> str:
    return f"{batch_rows:.1f}" if batch_rows else "-"
