"""The peers' model: a scaler and a logistic regression over eight numbers, which counts what it is asked.

    python counted.py model.joblib

Run by each peer's own interpreter, whose scikit-learn is not ours, and imported by what loads the file. The counts,
calls and rows, lie in the file that `COUNTS` names, so that whoever measures reads them from outside.
"""

import os
import sys

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler


class Counted(Pipeline):
    """Adds each call of `predict_proba`, and its rows, to the file of counts."""

    def predict_proba(self, rows):
        counts = self.__dict__.get("counts")
        if counts is None:
            counts = self.counts = np.memmap(os.environ["COUNTS"], np.int64, "r+", shape=(2,))
        counts += (1, len(rows))
        return super().predict_proba(rows)


def fitted():
    """The same in every environment: the numbers are drawn from a seed."""
    random = np.random.default_rng(0)
    rows = random.uniform(0, 100, (20_000, 8)).astype(np.float32)
    model = Counted([("scaler", StandardScaler()), ("classes", LogisticRegression())])
    return model.fit(rows, rows[:, 0] + random.normal(0, 20, 20_000) > 50)


if __name__ == "__main__":
    import counted  # as what loads the file will find it; here it is `__main__`

    joblib.dump(counted.fitted(), sys.argv[1])
