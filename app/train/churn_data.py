"""Customers who do not exist: the formula of `schemas/churn_generated.json`, as event columns and truth.

The page describes the formula and holds its numbers. The load generator implements the same page on its own;
a contract test holds the two equal.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.errors import BadSettings

FORMULA_FILE = "churn_generated.json"
FORMAT = 1

Floats = npt.NDArray[np.float64]
Draw = Callable[[int], Floats]


@dataclass(frozen=True, slots=True)
class Customers:
    """n generated customers; row i of everything is the same one.

    table: the fields of ChurnEvent without event_time, in its order and types.
    probability: (n,) the true probability of churn. churned: (n,) what became of them.
    """

    table: pa.RecordBatch
    probability: Floats
    churned: npt.NDArray[np.bool_]


class ChurnFormula:
    """The generator, with the parameters of its page. Customer i is a pure function of (seed, i)."""

    def __init__(self, page: dict[str, Any]) -> None:
        self._page = page
        self._features = page["features"]
        self._odds = page["log_odds"]
        self._block_size: int = page["block_size"]

    @classmethod
    def load(cls, schemas: Path) -> "ChurnFormula":
        """Read the page from the schema directory. Raises BadSettings if there is none of this format."""
        path = schemas / FORMULA_FILE
        try:
            page = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise BadSettings(f"cannot read the generator's formula {path}: {exc}") from exc
        if not isinstance(page, dict) or page.get("format") != FORMAT:
            raise BadSettings(f"{path} is not a formula of format {FORMAT}")
        return cls(page)

    def customers(self, seed: int, first: int, count: int) -> Customers:
        """Generate customers `first` to `first + count - 1` of a seed; count >= 1."""
        size = self._block_size
        blocks = range(first // size, (first + count - 1) // size + 1)
        drawn = [self._block(seed, block) for block in blocks]
        start = first - blocks.start * size
        columns = {name: np.concatenate([block[name] for block in drawn])[start : start + count] for name in drawn[0]}
        return Customers(self._table(columns, first), columns["probability"], columns["churned"])

    def _block(self, seed: int, block: int) -> dict[str, npt.NDArray[Any]]:
        rng = np.random.default_rng([seed, block])
        sources: dict[str, Draw] = {"uniform": rng.random, "normal": rng.standard_normal}
        draws = {draw["name"]: sources[draw["kind"]](self._block_size) for draw in self._page["draws"]}
        of = self._features
        age = of["age"]["minimum"] + np.floor(of["age"]["count"] * draws["u_age"])
        tenure = of["tenure_months"]["minimum"] + np.floor(of["tenure_months"]["count"] * draws["u_tenure"])
        plan = (draws["u_plan"][:, None] >= np.array(of["plan"]["cumulative"])).sum(axis=1)
        spread = of["income"]["log_mean"] + of["income"]["log_std"] * draws["n_income"]
        income = np.round(np.clip(np.exp(spread), of["income"]["minimum"], of["income"]["maximum"]), 2)
        fee = of["monthly_charges"]
        monthly = np.array(fee["mean"])[plan] + fee["std"] * draws["n_monthly"]
        monthly = np.round(np.clip(monthly, fee["minimum"], fee["maximum"]), 2)
        bill = of["total_charges"]
        noise = bill["noise_low"] + bill["noise_width"] * draws["u_noise"]
        probability = self._probability(age, income, tenure, monthly, plan)
        return {
            "age": age.astype(np.int32),
            "income": income,
            "tenure_months": tenure.astype(np.int32),
            "monthly_charges": monthly,
            "total_charges": np.round(tenure * monthly * noise, 2),
            "missing": draws["u_missing"] < bill["missing_share"],
            "plan": plan.astype(np.int32),
            "probability": probability,
            "churned": draws["u_label"] < probability,
        }

    def _probability(
        self, age: Floats, income: Floats, tenure: Floats, monthly: Floats, plan: npt.NDArray[np.int64]
    ) -> Floats:
        odds, scale = self._odds, self._odds["scale"]

        def scaled(name: str, values: Floats) -> Floats:
            return np.asarray((values - scale[name]["center"]) / scale[name]["width"])

        z = odds["intercept"] + odds["tenure_months"] * scaled("tenure_months", tenure)
        z = z + odds["monthly_charges"] * scaled("monthly_charges", monthly)
        z = z + odds["age"] * scaled("age", age) + odds["income"] * scaled("income", income)
        z = z + np.array(odds["plan"])[plan]
        pair = scaled("tenure_months", tenure) * scaled("monthly_charges", monthly)
        z = z + odds["tenure_months_x_monthly_charges"] * pair
        return np.asarray(1.0 / (1.0 + np.exp(-z)))

    def _table(self, columns: dict[str, npt.NDArray[Any]], first: int) -> pa.RecordBatch:
        n = len(columns["age"])
        symbols = pa.array(self._features["plan"]["symbols"])
        table = {
            "customer_id": pa.array([f"cust-{index:08d}" for index in range(first, first + n)]),
            "age": pa.array(columns["age"]),
            "income": pa.array(columns["income"]),
            "tenure_months": pa.array(columns["tenure_months"]),
            "monthly_charges": pa.array(columns["monthly_charges"]),
            "total_charges": pa.array(columns["total_charges"], mask=columns["missing"]),
            "plan": pa.DictionaryArray.from_arrays(pa.array(columns["plan"]), symbols),
        }
        return pa.RecordBatch.from_pydict(table)
