"""The worker, with clients that fail where a test says: `python -m tests.chaos.failing_worker run --config …`.

FAILPOINTS is a list of `place@count=action`, separated by spaces. The count-th time the place is passed, the action
happens, in the thread that passes it:

    kill                     SIGKILL to ourselves
    stop                     SIGSTOP to ourselves; somebody else has to send SIGCONT
    sleep:SECONDS            the call does not return
    raise:CODE[:FLAG…]       KafkaException with this code; FLAG: fatal, retriable, txn_requires_abort

Places are counted once the file FAILPOINTS_WHEN is there, or from the start if none is named.

A place is `before_` or `after_` the name of a client method. An exception after a call is a result that got lost: the
call took effect and its caller does not know. At SIGUSR1 it writes down what its threads are doing. Everything else is
the app as it is; it knows nothing of this file.
"""

import faulthandler
import importlib
import os
import pkgutil
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

import app.kafka
from app.__main__ import main

PRODUCER_CALLS = (
    "init_transactions",
    "begin_transaction",
    "produce_batch",
    "send_offsets_to_transaction",
    "commit_transaction",
    "abort_transaction",
    "flush",
)
CONSUMER_CALLS = ("commit", "close")


class Failpoints:
    """Which place fails at which passing, and how."""

    def __init__(self, text, when=None):
        self._actions, self._when = {}, when
        for term in text.split():
            at, _, action = term.partition("=")
            place, _, count = at.partition("@")
            if place.partition("_")[2] not in {*PRODUCER_CALLS, *CONSUMER_CALLS}:
                raise ValueError(f"FAILPOINTS: there is no place {place!r}")
            self._actions[place, int(count)] = action
        self._passed = Counter()

    def passing(self, place):
        """Do what is due here."""
        if self._when is not None and not self._when.exists():
            return
        self._passed[place] += 1
        action = self._actions.get((place, self._passed[place]))
        if action is None:
            return
        print(f'{{"event": "failpoint", "place": "{place}", "action": "{action}"}}', flush=True)  # noqa: T201
        kind, *details = action.split(":")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "stop":
            # To this thread, not to the process: until the thread that takes a signal to the process has stopped them
            # all, this one runs on, as far as into the next call.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        elif kind == "sleep":
            time.sleep(float(details[0]))
        elif kind == "raise":
            code, *flags = details
            raise KafkaException(
                KafkaError(getattr(KafkaError, code), f"failpoint {place}", **dict.fromkeys(flags, True))
            )
        else:
            raise ValueError(f"FAILPOINTS: there is no action {action!r}")


def failing(client, calls, failpoints):
    """A subclass of one of the client's classes that passes failpoints before and after these calls."""

    def surrounded(name):
        method = getattr(client, name)

        def call(self, *arguments, **options):
            failpoints.passing(f"before_{name}")
            given = method(self, *arguments, **options)
            failpoints.passing(f"after_{name}")
            return given

        return call

    return type(f"Failing{client.__name__}", (client,), {name: surrounded(name) for name in calls})


def put_in_place(failpoints):
    """In every module of app.kafka that names the client's classes."""
    replacements = {
        confluent_kafka.Producer: failing(confluent_kafka.Producer, PRODUCER_CALLS, failpoints),
        confluent_kafka.Consumer: failing(confluent_kafka.Consumer, CONSUMER_CALLS, failpoints),
    }
    replaced = set()
    for found in pkgutil.iter_modules(app.kafka.__path__):
        module = importlib.import_module(f"app.kafka.{found.name}")
        for client, replacement in replacements.items():
            if getattr(module, client.__name__, None) is client:
                setattr(module, client.__name__, replacement)
                replaced.add(client)
    if replaced != set(replacements):
        raise RuntimeError("app.kafka does not use the client's classes by their names any more")


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    named = os.environ.get("FAILPOINTS_WHEN")
    put_in_place(Failpoints(os.environ.get("FAILPOINTS", ""), Path(named) if named else None))
    sys.exit(main())
