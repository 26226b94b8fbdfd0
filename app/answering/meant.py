"""Numbers of 32 bits as the decimals that they were written as."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LARGEST_EXACT = 1e22  # powers of ten up to it are exact in float64, and so is a quotient of them


def as_meant(features: Array) -> Array:
    """Numbers → float64, whatever they are; a float32 becomes the shortest decimal that is it, if seven digits do.

    A client's 0.1 comes as 0.100000001490116: above a bound of 0.1, and another number than the stream has for it.
    """
    with np.errstate(all="ignore"):  # a signalling NaN warns when it is widened
        exact: Array = features.astype(np.float64, copy=False)
        if features.dtype != np.float32:
            return exact
        size = np.floor(np.log10(np.abs(exact)))
        meant = exact
        for digits in (7, 6):
            places = digits - 1 - size
            scale = np.power(10.0, np.abs(places))
            rounded = np.where(places > 0, np.rint(exact * scale) / scale, np.rint(exact / scale) * scale)
            meant = np.where((rounded.astype(np.float32) == features) & (scale <= LARGEST_EXACT), rounded, meant)
    return meant
