"""Errors that come as messages: which of them say that no record will follow, and what that means for the worker."""

from confluent_kafka import KafkaError

from app.errors import BrokerRefused, ConsumerDead, Fenced

# After these the client goes on behind the records it could not read.
_UNREADABLE = {KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION}  # noqa: SLF001 - the client's names for it
_REFUSALS = {
    KafkaError.GROUP_AUTHORIZATION_FAILED: "the group may not be read (ACL: Read on Group)",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "a topic may not be read (ACL: Read on Topic)",
    KafkaError.UNSUPPORTED_VERSION: "the broker does not know this group protocol (kafka.group_protocol)",
    KafkaError._UNSUPPORTED_FEATURE: "the broker does not know this group protocol (kafka.group_protocol)",  # noqa: SLF001 - the client's name for it
    KafkaError.INCONSISTENT_GROUP_PROTOCOL: "the group's other members use another protocol or assignor",
}


def raise_if_final(error: KafkaError) -> None:
    """Raises BrokerRefused, Fenced or ConsumerDead if nothing will follow this error; else the client goes on."""
    for code, refusal in _REFUSALS.items():
        if _is(error, code):
            raise BrokerRefused(f"{refusal}: {error.str()}")
    if _is(error, KafkaError.FENCED_INSTANCE_ID):
        raise Fenced(
            "another consumer uses our group instance id; with worker.static_membership every live worker needs "
            f"its own worker.instance_id ({error.str()})"
        )
    # In a message _FATAL is always fatal, whatever .fatal() says: after it the consumer is silent for ever.
    if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001 - the client's name
        raise ConsumerDead(f"the consumer cannot go on: {error.str()}")
    if error.code() in _UNREADABLE:
        raise ConsumerDead(f"records cannot be read, and would be passed over: {error.str()}")


def is_without_start(error: KafkaError) -> bool:
    """Whether it says that there is no committed offset, or no record at it any more."""
    return bool(error.code() == KafkaError._AUTO_OFFSET_RESET)  # noqa: SLF001 - the client's name


def _is(error: KafkaError, code: int) -> bool:
    """Whether this is the error or, since a fatal error hides the code of its cause but not the text, its cause."""
    return error.code() == code or (error.code() == KafkaError._FATAL and KafkaError(code).str() in error.str())  # noqa: SLF001 - the client's name
