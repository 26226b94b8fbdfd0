"""Why a row as people wrote it is no event, in words that begin with the field."""

from reprlib import Repr

from app.errors import Reason, Stage
from app.records import Rejection

LONGEST_VALUE = 64  # characters of a refused value quoted in a message
DEEPEST_VALUE = 4  # lists in lists that a message shows: repr() itself follows them until the stack is full


def bad_value(row: int, where: str, value: object, expected: str) -> Rejection:
    """The value there is of another kind."""
    return rejection(row, Reason.BAD_SHAPE, f"{where} is {short(value)}, expected {expected}")


def rejection(row: int, reason: Reason, message: str) -> Rejection:
    """The row makes no features, for this reason."""
    return Rejection(row, Stage.FEATURES, reason, "BadFeatures", message)


def short(value: object, *, quoted: bool = True) -> str:
    """A refused value for a message, at most LONGEST_VALUE characters of it, however large or deep it is."""
    shown = Repr()
    shown.maxlevel, shown.maxlist, shown.maxdict = DEEPEST_VALUE, LONGEST_VALUE, LONGEST_VALUE
    shown.maxstring = shown.maxlong = shown.maxother = 4 * LONGEST_VALUE  # it cuts in the middle, this at the end
    text = shown.repr(value) if quoted else str(value)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"
