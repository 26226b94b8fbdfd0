"""One look at many workers, by their own `/metrics`."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from prometheus_client.parser import text_string_to_metric_families

from app.facts import MetricsLook, Sample
from app.observe.endpoint import WITHIN_S, Endpoint, Unreadable, figure, figures_expected

MOST_AT_ONCE = 16


class ScrapedWorkers:
    """Workers by the addresses of their metrics. What they showed in the past is not known."""

    def __init__(self, model: str, names: frozenset[str], urls: Sequence[str], within_s: float = WITHIN_S) -> None:
        """names: of the metrics wanted. Raises BadSettings for an address that cannot be asked."""
        self._model, self._names = model, names
        self._endpoints = [Endpoint(url, within_s) for url in dict.fromkeys(urls)]

    def now(self) -> MetricsLook:
        """Every worker, at once."""
        workers, unread = {}, {}
        with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
            answers = pool.map(self._read, self._endpoints)
            for endpoint, answer in zip(self._endpoints, answers, strict=True):
                if isinstance(answer, Unreadable):
                    unread[endpoint.name] = str(answer)
                else:
                    workers[endpoint.name] = answer
        return MetricsLook(workers, unread)

    def since(self, epoch_s: float) -> Sequence[MetricsLook]:  # noqa: ARG002 - a server that keeps them needs it
        """Nothing: a worker shows what is now."""
        return ()

    def _read(self, endpoint: Endpoint) -> list[Sample] | Unreadable:
        try:
            return samples_of(endpoint.body(), self._model, self._names)
        except Unreadable as exc:
            return exc


def samples_of(page: bytes, model: str, names: frozenset[str]) -> list[Sample]:
    """The samples of these names, of one model, on a page of metrics. Raises Unreadable, also if it has none."""
    with figures_expected():
        found = [
            (sample.name, tuple(sample.labels.items()), figure(sample.value))
            for family in text_string_to_metric_families(page.decode())
            for sample in family.samples
            if sample.name in names and sample.labels.get("model") == model
        ]
    if not found:
        raise Unreadable(f"it has no figures of model {model!r}")
    return found
