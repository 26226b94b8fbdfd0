"""Which predictions are in the sample: those of some keys, the same keys for ever and in every worker."""

from collections.abc import Sequence
from itertools import repeat
from typing import cast

import numpy as np
from xxhash import xxh3_64_intdigest

from app.records import IntArray, Predictions

SALT = b"inference.sample"  # a rollout's shares have salts of their own: the sample has all of its arms
_SEED = xxh3_64_intdigest(SALT)
_HASHES = 2**64


def sampled_rows(keys: Sequence[bytes | None], share: float) -> IntArray:
    """The rows whose key is in a sample of this share of all keys, rising.

    XXH3 (64 bit) of the key, seeded by that of SALT, below `share` of what it can be: a larger share has the keys of
    a smaller one, and more. A record without a key is in none.
    """
    known = [key or b"" for key in keys] if None in keys else cast("Sequence[bytes]", keys)
    if share >= 1:
        chosen = np.ones(len(known), np.bool_)
    else:
        hashes = np.fromiter(map(xxh3_64_intdigest, known, repeat(_SEED)), np.uint64, len(known))
        chosen = hashes < np.uint64(share * _HASHES)
    if known is not keys:
        chosen &= np.array([key is not None for key in keys], np.bool_)
    return np.flatnonzero(chosen)


def sample_of(predictions: Predictions, share: float, most_bytes: int) -> Predictions:
    """Those of them that are in the sample; without those its topic does not take, value and key together."""
    rows = sampled_rows(predictions.keys, share)
    rows = rows[predictions.sizes[rows] <= most_bytes]
    if len(rows) == len(predictions.values):
        return predictions
    chosen = rows.tolist()
    return Predictions(
        [predictions.values[row] for row in chosen],
        [predictions.keys[row] for row in chosen],
        predictions.partitions[rows],
        predictions.sizes[rows],
    )
