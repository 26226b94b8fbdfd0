"""Why there is no answer, named for what the caller does next.

ClientError
  BadRequest         mend the request: `field` says where         400, 413, 422        INVALID_ARGUMENT, OUT_OF_RANGE
  NotAllowed         get a key or a token that may                401, 403             UNAUTHENTICATED, PERMISSION_…
  NotFound           ask for what is there                        404, 405             NOT_FOUND, UNIMPLEMENTED
  ServerFailed       tell whoever runs the server                 500 and the others   INTERNAL and the others
  BadAnswer          the same: this is not the protocol           2xx
  DeadlineExceeded   there was no time left                       504                  DEADLINE_EXCEEDED
  Retriable          was asked again, as long as that was allowed
    Overloaded       ask less                                     429                  RESOURCE_EXHAUSTED
    NotServing       wait until a model is there                  503                  UNAVAILABLE
    Unreachable      look at the network, or at the proxy         502, no answer       (UNAVAILABLE too)
"""


class ClientError(Exception):
    """There is no answer. request_id: what the request was called in every attempt, and in the server's log."""

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


class BadRequest(ClientError):
    """The request makes no sense to the server, or cannot be written down at all. field: as the server names it."""

    def __init__(self, message: str, *, field: str | None = None, request_id: str | None = None) -> None:
        super().__init__(message, request_id=request_id)
        self.field = field


class NotAllowed(ClientError):
    """The server does not know who is asking, or does know and refuses."""


class NotFound(ClientError):
    """The server has no such model, version or method."""


class ServerFailed(ClientError):
    """The server, or the model, failed by its own fault; it would again."""


class BadAnswer(ClientError):
    """The server says that all is well, and what it sent is not an answer to this request."""


class DeadlineExceeded(ClientError):
    """The call's time was over, here or on the server."""


class Retriable(ClientError):
    """Asking again may help. retry_after_s: not before, where the server says so."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, request_id: str | None = None) -> None:
        super().__init__(message, request_id=request_id)
        self.retry_after_s = retry_after_s


class Overloaded(Retriable):
    """More is waiting at the server than may."""


class NotServing(Retriable):
    """No model is ready yet, or the server is about to end."""


class Unreachable(Retriable):
    """No connection, or it ended before the answer was whole."""
