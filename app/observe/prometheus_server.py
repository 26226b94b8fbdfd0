"""One look at many workers, by what a Prometheus server keeps of them: of now, and of the past."""

from collections.abc import Mapping, Sequence

import orjson

from app.clock import Clock
from app.facts import MetricsLook, Sample
from app.observe.endpoint import WITHIN_S, Endpoint, Unreadable, figure, figures_expected

MOST_POINTS = 500  # of the past: a worker that was started again is noticed between two of them
LABELS = ("pipeline", "model", "version", "outcome", "result", "error", "le")  # the workers' own

Series = tuple[Mapping[str, str], Sequence[tuple[float, float]]]  # labels; (epoch seconds, value), …


class PrometheusServer:
    """A Prometheus server, or what speaks its query API. A worker is one of its targets.

    names: of the metrics wanted. match: more label matchers in its language, as `job="inference"`.
    """

    def __init__(
        self, model: str, names: frozenset[str], url: str, clock: Clock, *, match: str = "", within_s: float = WITHIN_S
    ) -> None:
        """Raises BadSettings for an address that cannot be asked."""
        self._endpoint, self._clock, self._model = Endpoint(url, within_s), clock, model
        more = f",{match}" if match else ""
        self._wanted = f'{{__name__=~"{"|".join(sorted(names))}",model={orjson.dumps(model).decode()}{more}}}'
        self._down = f"up{{{match}}} == 0"

    def now(self) -> MetricsLook:
        """Every target that shows figures of the model; targets of the same jobs that are down are unread."""
        now_s = self._clock.now_ms() / 1000
        try:
            looks = self._between(now_s, now_s, 1.0)
        except Unreadable as exc:
            return MetricsLook({}, {self._endpoint.name: str(exc)})
        if not looks:
            return MetricsLook({}, {self._endpoint.name: f"it has no figures of model {self._model!r}"})
        return looks[-1]

    def since(self, epoch_s: float) -> Sequence[MetricsLook]:
        """At most MOST_POINTS looks, evenly spaced; one that says why, of nobody, if the server does not answer."""
        now_s = self._clock.now_ms() / 1000
        if epoch_s >= now_s:
            return ()
        try:
            return self._between(epoch_s, now_s, max((now_s - epoch_s) / MOST_POINTS, 1.0))
        except Unreadable as exc:
            return (MetricsLook({}, {self._endpoint.name: str(exc)}, now_s),)

    def _between(self, start_s: float, end_s: float, step_s: float) -> list[MetricsLook]:
        times = {"start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": f"{step_s:.3f}"}
        shown = self._ask(self._wanted, times)
        jobs = {labels.get("job") for labels, _ in shown}
        down = [series for series in self._ask(self._down, times) if series[0].get("job") in jobs]
        workers: dict[float, dict[str, list[Sample]]] = {}
        unread: dict[float, dict[str, str]] = {}
        for labels, values in shown:
            own = {label: labels.get(f"exported_{label}", labels.get(label)) for label in LABELS}
            kept = tuple((label, value) for label, value in own.items() if value is not None)
            for at_s, value in values:
                found = workers.setdefault(at_s, {}).setdefault(_target(labels), [])
                found.append((labels.get("__name__", ""), kept, value))
        for labels, values in down:
            for at_s, _ in values:
                unread.setdefault(at_s, {})[_target(labels)] = "down, says Prometheus"
        times_s = sorted(workers.keys() | unread.keys())
        return [MetricsLook(workers.get(at_s, {}), unread.get(at_s, {}), at_s) for at_s in times_s]

    def _ask(self, query: str, times: Mapping[str, str]) -> list[Series]:
        """Raises Unreadable."""
        body = self._endpoint.body("/api/v1/query_range", {"query": query, **times})
        with figures_expected():
            return [
                (
                    {str(label): str(value) for label, value in series["metric"].items()},
                    [(float(at_s), figure(float(value))) for at_s, value in series["values"]],
                )
                for series in orjson.loads(body)["data"]["result"]
            ]


def _target(labels: Mapping[str, str]) -> str:
    """What tells one target from the others: all labels that are not the worker's own.

    A target may have a label of the same name as one of the worker's, which the server then shows as `exported_…`.
    """
    own = {name for name in LABELS if f"exported_{name}" not in labels} | {f"exported_{name}" for name in LABELS}
    rest = {name: value for name, value in labels.items() if name not in {*own, "__name__"}}
    first = f"{rest.pop('job', '')}/{rest.pop('instance', '')}"
    return " ".join([first, *(f"{name}={value}" for name, value in sorted(rest.items()))])
