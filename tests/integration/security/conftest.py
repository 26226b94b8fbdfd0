"""One secured broker for the folder, and pipelines on it."""

import uuid

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from rig import Lane
from secured_broker import Running

from app.wiring import training


@pytest.fixture(scope="session")
def secured(tmp_path_factory):
    """A broker with authentication, TLS and an authorizer that denies by default."""
    with Running(tmp_path_factory.mktemp("secured")) as broker:
        yield broker


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Churn alone, and of few customers: who predicts matters here, not what."""
    store = tmp_path_factory.mktemp("models")
    training.train("churn", store=str(store), estimator=None, rows=2_000, seed=0, progress=lambda _: None)
    return store


@pytest.fixture
def secured_lane(secured, models):
    """A churn pipeline's topics on it, one partition each; nobody has a permission yet."""
    names = [f"churn.{kind}.{uuid.uuid4().hex[:12]}" for kind in ("events", "predictions", "dead-letters")]
    admin = AdminClient({"bootstrap.servers": secured.kafka})
    for made in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
        made.result(30)
    return Lane(secured.kafka, "churn", (names[0],), names[1], names[2], models)
