"""The model alone, on one thread, in batches of the same size: the limit of whatever runs it. Prints JSON."""

import json
import time

import numpy as np

from loadgen.bench.peers.job import Model, PeerSettings

SECONDS = 3.0
DISTINCT_ROWS = 16_384  # far more than a batch, so that branches are not learnt by heart


def main() -> None:
    """Measure and print rows_per_s and cpu_s_per_million."""
    settings = PeerSettings.from_environment()
    model = Model(settings.model)
    rows = model.features(_events(DISTINCT_ROWS))
    batches = [rows[at : at + settings.batch] for at in range(0, len(rows) - settings.batch + 1, settings.batch)]
    for batch in batches:
        model.probabilities(batch)
    done, started, cpu = 0, time.perf_counter(), time.process_time()
    while (seconds := time.perf_counter() - started) < SECONDS:
        for batch in batches:
            model.probabilities(batch)
            done += len(batch)
    used = time.process_time() - cpu
    print(json.dumps({"rows_per_s": done / seconds, "cpu_s_per_million": used / done * 1e6}))  # noqa: T201


def _events(count: int) -> list[dict[str, object]]:
    """Rows spread as the generated customers are, roughly; the exact values do not matter to the time."""
    rng = np.random.default_rng(0)
    columns = {
        "age": rng.integers(18, 90, count).tolist(),
        "income": rng.lognormal(10.6, 0.5, count).tolist(),
        "tenure_months": rng.integers(0, 73, count).tolist(),
        "monthly_charges": rng.uniform(20, 130, count).tolist(),
        "total_charges": rng.uniform(0, 9000, count).tolist(),
        "plan": [("basic", "standard", "premium")[index] for index in rng.integers(0, 3, count)],
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


if __name__ == "__main__":
    main()
