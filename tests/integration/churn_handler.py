"""Handlers for the shipped churn model: `tests.integration.churn_handler:SameAsManifest` and worse ones."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.handler import Handler, Reason, RejectRows

PLANS = pa.array(["basic", "standard", "premium"])
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
    """Fails from its tenth batch on, whatever it is given."""

    batches = 0

    def postprocess(self, outputs):
        """Or not."""
        self.batches += 1
        if self.batches > 10:
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
