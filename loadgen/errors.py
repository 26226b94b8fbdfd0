"""What can go wrong in the load generator, named for what its caller does next.

LoadgenError        exit 2: the run could not be made, so nothing was judged
  BadOption         an option or a file it names is not usable; the message says which and what is allowed
  MissingExtra      an optional library is not installed; the message names the extra
  BrokerFailed      Kafka could not be reached, refused us, or did not finish within the timeout
  RegistryFailed    the schema registry could not be reached or refused us
  ServerFailed      the REST or gRPC server could not be reached, or refused the first request

A broken invariant is not an error of ours: it is a `Violation` in the result, and exit 1.
"""


class LoadgenError(Exception):
    """The run could not be made; nothing was judged."""


class BadOption(LoadgenError):
    """An option, or a file it names, is not usable."""


class MissingExtra(LoadgenError):
    """An optional library is not installed."""


class BrokerFailed(LoadgenError):
    """Kafka could not be reached, refused us, or did not finish in time."""


class RegistryFailed(LoadgenError):
    """The schema registry could not be reached, or refused us."""


class ServerFailed(LoadgenError):
    """The REST or gRPC server could not be reached, or refused the first request."""
