"""Handlers for the shipped churn model: `tests.integration.churn_handler:SameAsManifest` and worse ones."""

import ctypes
from threading import Event

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.handler import Handler, Reason, RejectRows

PLANS = pa.array(["basic", "standard", "premium"])
# Of `Choosy`: age → stage and reason.
TROUBLES = {
    20: ("features", "expired"), 77: ("features", "model_error"), 44: ("features", "bad_shape"),
    55: ("features", "bad_shape"), 66: ("features", "bad_shape"), 88: ("features", "not_finite"),
}  # fmt: skip
UNSURE = 0.02
SLOW_S = 0.002
NUMBERS = ("age", "income", "tenure_months", "monthly_charges", "total_charges")


class SameAsManifest(Handler):
    """What the manifest says, said in Python."""

    examples = ({"age": 30, "income": 1.0, "tenure_months": 2, "monthly_charges": 3.0, "plan": "basic"},)

    def initialize(self, context):
        """Take the replacement of missing values from the manifest."""
        super().initialize(context)
        (charges,) = [f for f in context.inputs[0].features if f.field == "total_charges"]
        self.missing = charges.missing.impute

    def preprocess(self, batch):
        """Numbers, then one column for each plan."""
        numbers = {name: batch.column(name) for name in NUMBERS}
        numbers["total_charges"] = pc.fill_null(numbers["total_charges"], self.missing)
        table = np.column_stack([column.to_numpy() for column in numbers.values()])
        outside = (table < 0).any(axis=1) | (table[:, 0] < 18) | (table[:, 0] > 120)
        if outside.any():
            raise RejectRows(outside, Reason.OUT_OF_RANGE, "a number is out of range")
        plans = pc.index_in(batch.column("plan").cast(pa.string()), PLANS).to_numpy()
        return {"X": np.hstack([table, np.eye(len(PLANS))[plans]]).astype(np.float32)}

    def postprocess(self, outputs):
        """By the threshold."""
        p = outputs["probabilities"][:, 1]
        churns = p >= self.context.outputs[0].threshold
        confidence = np.where(churns, p, outputs["probabilities"][:, 0])
        return {"prediction": churns.astype(int), "will_churn": churns, "probability": p, "confidence": confidence}


class Allergic(SameAsManifest):
    """Ends the process, as it thinks, over each customer of 77."""

    def preprocess(self, batch):
        """Or not."""
        if pc.any(pc.equal(batch.column("age"), 77)).as_py():
            raise SystemExit(77)
        return super().preprocess(batch)


class Tiring(SameAsManifest):
    """Fails after a thousand rows, in however few calls."""

    rows = 0

    def postprocess(self, outputs):
        """Or not."""
        self.rows += len(outputs["probabilities"])
        if self.rows > 1_000:
            raise RuntimeError("tired")
        return super().postprocess(outputs)


class FirstOnly(SameAsManifest):
    """Refuses all versions but the first."""

    def initialize(self, context):
        """Look at the version."""
        super().initialize(context)
        if context.version != "1":
            raise ValueError(f"not made for version {context.version}")


class Unwilling(Handler):
    """Refuses to start."""

    def initialize(self, context):
        """Never succeeds."""
        raise PermissionError(f"no licence for version {context.version}")


class Choosy(SameAsManifest):
    """Has its troubles with some ages, and says nothing of customers it is not sure about."""

    def preprocess(self, batch):
        """At 20 it rejects, at 33 it is slow, at 44 to 88 it does what no handler may."""
        ages = batch.column("age").to_numpy()
        if (ages == 20).any():
            raise RejectRows(ages == 20, Reason.EXPIRED, "twenty")
        if (ages == 33).any():
            Event().wait(SLOW_S)
        if (ages == 77).any():
            raise SystemExit(77)
        made = super().preprocess(batch)["X"]
        if (ages == 44).any():
            return {"X": made[1:]}
        if (ages == 55).any():
            return {"X": made.astype(np.float64)}
        if (ages == 66).any():
            return {"X": np.hstack([made, made])}
        made[ages == 88] = np.nan
        return {"X": made}

    def postprocess(self, outputs):
        """By the threshold, and by UNSURE."""
        made = super().postprocess(outputs)
        unsure = np.abs(made["probability"] - self.context.outputs[0].threshold) < UNSURE
        if unsure.any():
            raise RejectRows(unsure, Reason.OUT_OF_RANGE, "it could be either")
        return made


class BreaksInSecond(SameAsManifest):
    """Is at fault with whatever it is given once it serves version 2."""

    calls = 0

    def preprocess(self, batch):
        """Its one example, with others and alone, at the start; nothing after that."""
        self.calls += 1
        if self.context.version == "2" and self.calls > 2:
            raise RuntimeError("broken")
        return super().preprocess(batch)


class OddBeside(SameAsManifest):
    """In order in version 1; version 2 fails on some ages, version 3 hangs and keeps the interpreter lock."""

    def preprocess(self, batch):
        """Its example at the start is as good as in version 1."""
        if batch.num_rows > 1 and self.context.version == "3":
            ctypes.PyDLL(None).sleep(3600)
        if self.context.version != "2":
            return super().preprocess(batch)
        ages = batch.column("age").to_numpy()
        if (ages == 77).any():
            raise SystemExit(77)
        made = super().preprocess(batch)["X"]
        if (ages == 44).any():
            return {"X": made[1:]}
        made[ages == 88] = np.nan
        return {"X": made}

    def postprocess(self, outputs):
        """NaN for those that version 2 is not sure of."""
        made = super().postprocess(outputs)
        if self.context.version == "2":
            made["probability"] = np.where(made["confidence"] < 0.5 + UNSURE, np.nan, made["probability"])
        return made
