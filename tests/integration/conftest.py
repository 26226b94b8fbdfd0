"""Trained models and fresh topics for tests that run the worker."""

import pytest
from rig import Lane

from app import wiring


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A model store with version 1 of churn and digits, trained here."""
    store = tmp_path_factory.mktemp("models")
    for pipeline, rows in (("churn", 5_000), ("digits", None)):
        wiring.train(pipeline, store=str(store), estimator=None, rows=rows, seed=0, progress=lambda _: None)
    return store


@pytest.fixture
def lane(kafka, topics, models):
    """Make a pipeline's topics: lane("churn", partitions=4, inputs=1, registry_url=None)."""

    def make(pipeline="churn", *, partitions=4, inputs=1, registry_url=None):
        return Lane(
            kafka=kafka,
            pipeline=pipeline,
            inputs=tuple(topics(f"{pipeline}.events", partitions) for _ in range(inputs)),
            output=topics(f"{pipeline}.predictions", partitions),
            dead_letters=topics(f"{pipeline}.dead-letters", partitions),
            store=models,
            registry_url=registry_url,
        )

    return make


