"""Errors of the local stack.

StackError
  DownloadFailed    an artifact could not be fetched, or not be built
  StartFailed       a server ended, or was not ready in time; carries the tail of its log
  StackMismatch     the directory holds a stack of another shape than the one asked for
  StackBusy         another process has been working on the same directory for too long
  QueryRefused      Prometheus does not answer a question; carries what it said
"""


class StackError(Exception):
    """The local stack cannot do what was asked; the message says why and what to do."""


class DownloadFailed(StackError):
    """An artifact could not be fetched or built. Nothing half-made is left behind."""


class StartFailed(StackError):
    """A server ended early or was not ready within its deadline."""


class StackMismatch(StackError):
    """The directory holds a stack of another shape than the one asked for."""


class StackBusy(StackError):
    """Another process held the directory's lock until our deadline."""


class QueryRefused(StackError):
    """Prometheus did not answer a question: it is wrong, or too large, or nobody is there."""
