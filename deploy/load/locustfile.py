"""Users for Locust: each asks about one customer again and again, and now and then about many at once.

    locust -f deploy/load/locustfile.py --host http://127.0.0.1:8000
    locust -f deploy/load/locustfile.py --host http://127.0.0.1:8080 --headless -u 200 -r 20 -t 2m --only-summary

Locust's users wait for their answers, so a slow server is asked less: it shows how people get on, and its percentiles
leave out whom they kept from asking. For latency at a given rate take `loadgen rest` (docs/LOAD.md).
Credentials come from LOCUST_API_KEY, if it is set.
"""

import os
import random

from locust import FastHttpUser, between, task

ROWS = 50  # of a batch
CHANCE = random.Random()  # noqa: S311 # nosec B311


class Caller(FastHttpUser):
    """One service that asks on behalf of one customer at a time."""

    wait_time = between(0.05, 0.5)

    def on_start(self) -> None:
        """Choose who is asked about: a rollout sticks to the key."""
        self.key = f"customer-{CHANCE.randrange(100_000)}"
        api_key = os.environ.get("LOCUST_API_KEY")
        self.sent_along = {"X-API-Key": api_key} if api_key else {}

    @task(10)
    def one(self) -> None:
        """Ask about one row; overload is a failure under a name of its own, for the server said when to come back."""
        with self.client.post(
            "/predict", json={"features": features(), "key": self.key}, headers=self.sent_along, catch_response=True
        ) as answer:
            if answer.status_code == 200 and "prediction" not in answer.json():
                answer.failure("no prediction")
            elif answer.status_code == 429:
                answer.failure(f"overloaded, retry after {answer.headers.get('retry-after')} s")

    @task(1)
    def many(self) -> None:
        """Ask about many rows at once; each must have its answer."""
        body = {"instances": [{"features": features()} for _ in range(ROWS)]}
        with self.client.post("/predict/batch", json=body, headers=self.sent_along, catch_response=True) as answer:
            if answer.status_code == 200 and len(answer.json()["predictions"]) != ROWS:
                answer.failure("not every row has an answer")


def features() -> dict[str, object]:
    """A customer as the shipped churn model takes them; one in ten without total charges."""
    tenure = CHANCE.randrange(72)
    monthly = round(CHANCE.uniform(20, 120), 2)
    return {
        "age": CHANCE.randint(18, 90),
        "income": round(CHANCE.lognormvariate(10.6, 0.5), 2),
        "tenure_months": tenure,
        "monthly_charges": monthly,
        "total_charges": None if CHANCE.random() < 0.1 else round(tenure * monthly, 2),
        "plan": CHANCE.choice(["basic", "standard", "premium"]),
    }
