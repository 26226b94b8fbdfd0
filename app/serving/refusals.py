"""Why a request is not answered, named for what the caller does next; each surface has its own code for each.

RequestRefused
  BadRequest   mend the request: it names the field        REST 400, 413, 422   gRPC INVALID_ARGUMENT
  NotFound     ask for what is there                       REST 404             gRPC NOT_FOUND
  NotServing   come back later: no version is ready        REST 503             gRPC UNAVAILABLE
  Overloaded   come back after `retry_after_s`             REST 429             gRPC RESOURCE_EXHAUSTED
  Expired      the time that the caller gave is over       REST 504             gRPC DEADLINE_EXCEEDED
  NotAllowed   say who you are, or ask somebody who may    REST 401, 403        gRPC UNAUTHENTICATED, PERMISSION_DENIED

A row that cannot be predicted is no refusal of its request: it is an entry of `Answers.rejected`. A model version that
fails by its own fault, with nobody to answer instead, is `errors.ModelFailed`: REST 500, gRPC INTERNAL.
"""

from app.errors import AppError


class RequestRefused(AppError):
    """The request is not answered; nothing was changed by it."""


class BadRequest(RequestRefused):
    """The request makes no sense as it is. too_large: it has more bytes or rows than are taken."""

    def __init__(self, message: str, *, field: str | None = None, too_large: bool = False) -> None:
        super().__init__(message)
        self.field = field
        self.too_large = too_large


class NotFound(RequestRefused):
    """There is no such model, or no such version of it is answering."""


class NotServing(RequestRefused):
    """No version is loaded yet, or the server is about to end."""


class Overloaded(RequestRefused):
    """More is waiting than may; in `retry_after_s` what waits now should be answered."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Expired(RequestRefused):
    """The deadline of the request passed before it was answered."""


class NotAllowed(RequestRefused):
    """known: the caller proved who they are, and may not do this."""

    def __init__(self, message: str, *, known: bool = False) -> None:
        super().__init__(message)
        self.known = known
