from pathlib import Path

from deploy.local.broker_config import BrokerPorts, broker_properties

ONE = [BrokerPorts(client=1001, controller=2001)]
THREE = [BrokerPorts(client=1000 + n, controller=2000 + n) for n in (1, 2, 3)]


def test_three_brokers_keep_three_replicas_of_which_two_must_acknowledge():
    properties = broker_properties(2, THREE, Path("/data"), {})

    assert properties["offsets.topic.replication.factor"] == "3"
    assert properties["transaction.state.log.replication.factor"] == "3"
    assert properties["transaction.state.log.min.isr"] == properties["min.insync.replicas"] == "2"
    assert properties["controller.quorum.voters"] == "1@127.0.0.1:2001,2@127.0.0.1:2002,3@127.0.0.1:2003"


def test_a_lone_broker_needs_no_company():
    properties = broker_properties(1, ONE, Path("/data"), {})

    assert properties["offsets.topic.replication.factor"] == "1"
    assert properties["transaction.state.log.min.isr"] == properties["min.insync.replicas"] == "1"


def test_a_broker_listens_on_loopback_only():
    properties = broker_properties(3, THREE, Path("/data"), {})

    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:1003,CONTROLLER://127.0.0.1:2003"


def test_overrides_win():
    overrides = {"message.max.bytes": "1000", "group.min.session.timeout.ms": "6000"}

    properties = broker_properties(1, ONE, Path("/data"), overrides)

    assert overrides.items() <= properties.items()
