"""The permissions of docs/SECURITY.md, granted: the commands on the page are what is tested."""

import re
import shlex
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

PAGE = Path(__file__).parents[3] / "docs" / "SECURITY.md"
KINDS = {
    "--topic": ResourceType.TOPIC,
    "--group": ResourceType.GROUP,
    "--transactional-id": ResourceType.TRANSACTIONAL_ID,
}
KNOWN = {"kafka-acls.sh", "--add", "--bootstrap-server", "--allow-principal", "--operation", "--resource-pattern-type"}


def documented_commands():
    """(one command per permission, the one for a prefix of transactional ids)."""
    exact, prefixed = re.findall(r"```sh\n((?:kafka-acls.sh .*\n)+)```", PAGE.read_text(encoding="utf-8"))
    return exact.splitlines(), prefixed.splitlines()


def names_of(lane, settings):
    """What stands on the page → what this test's pipeline has instead."""
    group, instance = settings["kafka"]["group_id"], settings["worker"]["instance_id"]
    return {
        "churn.events": lane.inputs[0],
        "churn.predictions": lane.output,
        "churn.dead-letters": lane.dead_letters,
        "churn-workers": group,
        "churn-workers-worker-0-0": f"{group}-{instance}-0",
        "churn-workers-": f"{group}-",
    }


def grant(kafka, commands, names):
    """As Kafka's tool would."""
    bindings = [_binding(command, names) for command in commands]
    admin = AdminClient({"bootstrap.servers": kafka})  # kept: collected early it would cancel what it was asked
    for made in admin.create_acls(bindings).values():
        made.result(30)


def _binding(command, names):
    words = shlex.split(command)
    assert {word for word in words if word.startswith(("-", "kafka"))} <= KNOWN | KINDS.keys(), command
    words.remove("--add")  # the one option without a value
    options = dict(zip(words[1::2], words[2::2], strict=True))
    (flag,) = KINDS.keys() & options.keys()
    return AclBinding(
        KINDS[flag],
        names[options[flag]],
        ResourcePatternType[options.get("--resource-pattern-type", "literal").upper()],
        options["--allow-principal"],
        "*",
        AclOperation[options["--operation"].upper()],
        AclPermissionType.ALLOW,
    )
