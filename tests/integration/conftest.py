"""Trained models and fresh topics for tests that run the worker."""

import os
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from rig import Lane

from app.wiring import training
from deploy.local.stack import Stack


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A model store with version 1 of churn and digits, trained here."""
    store = tmp_path_factory.mktemp("models")
    for pipeline, rows in (("churn", 5_000), ("digits", None)):
        training.train(pipeline, store=str(store), estimator=None, rows=rows, seed=0, progress=lambda _: None)
    return store


@pytest.fixture(scope="session")
def _three_versions(tmp_path_factory):
    """A model store with versions 1 to 3 of churn."""
    store = tmp_path_factory.mktemp("versions")
    for seed in range(3):
        training.train("churn", store=str(store), estimator=None, rows=5_000, seed=seed, progress=lambda _: None)
    return store


@pytest.fixture
def changing_lane(lane, _three_versions, tmp_path):
    """As `lane`, churn only, with a store of its own: versions 1 to 3, the first of them stable."""

    def make(**options):
        store = Path(shutil.copytree(_three_versions, tmp_path / "store", dirs_exist_ok=True))
        return replace(lane(**options), store=store)

    return make


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


@pytest.fixture(scope="session")
def strict_stack(tmp_path_factory, pytestconfig):
    """A broker for tests that others must not suffer from: it knows the classic group protocol only, asks for
    permissions, and may be suspended.
    """
    stack = Stack(tmp_path_factory.mktemp("strict"))
    stack.guard(os.getpid())
    properties = {
        "group.coordinator.rebalance.protocols": "classic",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    try:
        stack.up(properties=properties, quick_start=True)
        yield stack
    finally:
        stack.down(wipe=True)


@pytest.fixture
def strict_lane(strict_stack, models):
    """A churn pipeline's topics, two partitions each, on that broker."""
    kafka = strict_stack.status().environment["KAFKA_BOOTSTRAP_SERVERS"]
    names = [f"churn.{kind}.{uuid.uuid4().hex[:12]}" for kind in ("events", "predictions", "dead-letters")]
    admin = AdminClient({"bootstrap.servers": kafka})
    for made in admin.create_topics([NewTopic(name, 2, 1) for name in names]).values():
        made.result(30)
    return Lane(kafka, "churn", (names[0],), names[1], names[2], models)
