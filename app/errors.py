"""One error tree, named for what the worker does next.

AppError
  StartupError     exit 2, nothing consumed          BadSettings, ModelMissing, ModelInvalid, SchemaMissing,
                                                     SchemaIncompatible, HandlerInvalid, BrokerRefused, StoreRefused,
                                                     NotReachable
  RejectedRecord   dead-letter this row, carry on    DecodeFailed
  TransientError   keep offsets, back off, retry     BrokerUnavailable, SchemaRegistryUnavailable, SchemasPending,
                                                     StorageUnavailable, Aborted, InDoubt
  FatalError       exit 1, commit nothing new        ModelFailed (OutputRefused, HandlerFailed), Fenced, DeliveryFailed,
                                                     DeadLetterFlood, ConsumerDead, AuditBroken, MonitorFailed,
                                                     InputDamaged
  DrainDeadline    exit 3, what is left is read again
  RolloutRefused   a command ends, nothing changed   RolloutConflict

Feature and output rejects are columns of reasons, not exceptions: see `records.Rejection`.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar


class Reason(StrEnum):
    """Why a record was dead-lettered: the closed list of the header `inference.reason` and of the metrics."""

    BAD_FRAME = "bad_frame"
    UNKNOWN_SCHEMA = "unknown_schema"
    UNSUPPORTED_SCHEMA = "unsupported_schema"
    TRUNCATED = "truncated"
    TRAILING_BYTES = "trailing_bytes"
    BAD_UTF8 = "bad_utf8"
    BAD_INDEX = "bad_index"
    OVERSIZED = "oversized"
    OUT_OF_RANGE = "out_of_range"
    UNKNOWN_CATEGORY = "unknown_category"
    MISSING_VALUE = "missing_value"
    NOT_FINITE = "not_finite"
    BAD_SHAPE = "bad_shape"
    MODEL_ERROR = "model_error"
    BAD_OUTPUT = "bad_output"
    EXPIRED = "expired"


class Stage(StrEnum):
    """Where a record was rejected: the header `__connect.errors.stage` and a metric label."""

    DECODE = "decode"
    FEATURES = "features"
    MODEL = "model"
    OUTPUT = "output"


class AppError(Exception):
    """Base of every error this program raises on purpose."""


class StartupError(AppError):
    """The worker cannot start as configured; nothing was consumed. Exit 2."""


class BadSettings(StartupError):
    """A setting is unknown, missing or out of bounds; the message names the field and the value."""


class ModelMissing(StartupError):
    """The model store has no such model or version."""


class ModelInvalid(StartupError):
    """The manifest, the digest, the graph or the golden rows are not what they should be."""


class SchemaMissing(StartupError):
    """The schema directory or the schema registry has no such schema."""


class SchemaIncompatible(StartupError):
    """A schema lacks a field the model needs, cannot be resolved, or is refused by the gate."""


class HandlerInvalid(StartupError):
    """A pipeline's handler cannot be imported, is none, refuses, or fails on rows it must be able to handle."""


class BrokerRefused(StartupError):
    """The broker cannot be reached or refuses us: authentication, TLS, topic, permission, group protocol."""


class StoreRefused(StartupError):
    """The model store refuses us: no credentials, wrong ones, or no permission."""


class NotReachable(StartupError):
    """Something the start needs does not answer; starting again later may help."""


class RejectedRecord(AppError):
    """One record cannot be predicted; it goes to the dead-letter topic and its neighbours carry on."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DecodeFailed(RejectedRecord):
    """The bytes are not a datum of their schema."""


class TransientError(AppError):
    """Waiting may help: keep the offsets, back off, retry."""


class BrokerUnavailable(TransientError):
    """The broker did not answer in time."""


class SchemaRegistryUnavailable(TransientError):
    """The schema registry did not answer; nothing is known about the schema id."""


class StorageUnavailable(TransientError):
    """What a scoring job reads from or writes to does not answer; what is done stays, the same order goes on."""


class SchemasPending(TransientError):
    """The writer schemas of some rows of a batch are not known yet: only their partitions need to wait."""

    def __init__(self, rows: Sequence[int], message: str) -> None:
        super().__init__(message)
        self.rows = rows


class Aborted(TransientError):
    """The transaction was aborted; nothing of it is visible. Rewind and deliver again."""


class InDoubt(TransientError):
    """Only the broker knows whether the transaction was committed: ask it from where to read again."""


class FatalError(AppError):
    """The worker must stop and commit nothing new. Exit 1."""


class ModelFailed(FatalError):
    """The model itself failed; no row was scored. Where a pipeline has a fallback, that answers instead."""


class OutputRefused(ModelFailed):
    """A row has a bad output and `bad_output` is stop: nobody is to answer instead."""


class HandlerFailed(ModelFailed):
    """A pipeline's handler failed, on rows that are known to be good too; the same as its model failing."""


class Fenced(FatalError):
    """Another worker uses our transactional id or group instance id."""


class DeliveryFailed(FatalError):
    """The broker refused, for good, a record that is neither too large nor retriable."""


class DeadLetterFlood(FatalError):
    """More records were rejected within the window than `dead_letter_limit` allows."""


class ConsumerDead(FatalError):
    """The consumer reported an error after which it would never deliver again."""


class InputDamaged(FatalError):
    """A file of rows cannot be read on; what was scored of it before stays scored."""


class AuditBroken(FatalError):
    """The audit trail and the topic contradict each other; whatever were written would be wrong."""


class MonitorFailed(FatalError):
    """Something in the monitor died or does not move; what is durable is right, and a new process goes on with it."""


class DrainDeadline(AppError):
    """Told to stop, the worker could not finish in time. Exit 3; what is left is read again."""


class RolloutRefused(AppError):
    """What was asked for does not fit the rollout that is in force; it was not changed."""


class RolloutConflict(RolloutRefused):
    """Somebody else changed the rollout meanwhile; look at what they did and decide again."""


Failure = TypeVar("Failure", bound=Exception)


def bare(failure: Failure) -> Failure:
    """The same without where it was raised: whoever keeps it must not keep those frames and all they hold."""
    failure.__cause__ = failure.__context__ = None
    return failure.with_traceback(None)
