"""Generated customers and their true answers: the formula of `schemas/churn_generated.json`, in columns.

Customer i is a pure function of (seed, i). The file describes the formula for readers and holds its
parameters; the trainer implements the same page on its own, and a test holds the two equal.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadgen.errors import BadOption

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Customers:
    """Columns of n customers; row i of every column is the same customer.

    total_charges: NaN where the event carries null. plan: index into the formula's symbols.
    probability: the true probability of churn. churned: what became of the customer.
    """

    age: NDArray[np.int32]
    income: NDArray[np.float64]
    tenure_months: NDArray[np.int32]
    monthly_charges: NDArray[np.float64]
    total_charges: NDArray[np.float64]
    plan: NDArray[np.int32]
    probability: NDArray[np.float64]
    churned: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64] | slice) -> "Customers":
        """Return the named rows, in the order named."""
        return Customers(**{name: getattr(self, name)[rows] for name in Customers.__slots__})

    @staticmethod
    def concatenate(parts: "list[Customers]") -> "Customers":
        """Return the rows of all parts, one after the other."""
        return Customers(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in Customers.__slots__}
        )


@dataclass(frozen=True, slots=True)
class ChurnFormula:
    """The parameters of the formula, as its file has them."""

    block_size: int
    draws: tuple[tuple[str, str], ...]
    features: Mapping[str, Any]
    log_odds: Mapping[str, Any]

    @property
    def plans(self) -> tuple[str, ...]:
        """The symbols of the plan enum, in index order."""
        return tuple(self.features["plan"]["symbols"])

    @staticmethod
    def load(path: Path) -> "ChurnFormula":
        """Read the formula's file. Raises BadOption if it is absent or of another format."""
        try:
            page = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadOption(f"cannot read the churn formula {path}: {error}") from error
        if not isinstance(page, dict) or page.get("format") != FORMAT:
            raise BadOption(f"{path}: format {FORMAT} is needed")
        return ChurnFormula(
            block_size=page["block_size"],
            draws=tuple((draw["name"], draw["kind"]) for draw in page["draws"]),
            features=page["features"],
            log_odds=page["log_odds"],
        )

    def block(self, seed: int, block_index: int) -> Customers:
        """Return customers block_index * block_size and the block_size - 1 that follow."""
        rng = np.random.default_rng([seed, block_index])
        draw = {
            name: rng.random(self.block_size) if kind == "uniform" else rng.standard_normal(self.block_size)
            for name, kind in self.draws
        }
        of = self.features

        age = of["age"]["minimum"] + np.floor(of["age"]["count"] * draw["u_age"])
        tenure = of["tenure_months"]["minimum"] + np.floor(of["tenure_months"]["count"] * draw["u_tenure"])
        plan = np.searchsorted(np.asarray(of["plan"]["cumulative"]), draw["u_plan"], side="right")
        wage = of["income"]
        income = np.exp(wage["log_mean"] + wage["log_std"] * draw["n_income"])
        income = np.round(np.clip(income, wage["minimum"], wage["maximum"]), 2)
        fee = of["monthly_charges"]
        monthly = np.asarray(fee["mean"])[plan] + fee["std"] * draw["n_monthly"]
        monthly = np.round(np.clip(monthly, fee["minimum"], fee["maximum"]), 2)
        bill = of["total_charges"]
        total = np.round(tenure * monthly * (bill["noise_low"] + bill["noise_width"] * draw["u_noise"]), 2)
        total[draw["u_missing"] < bill["missing_share"]] = np.nan

        probability = self._probability(age, income, tenure, monthly, plan)
        return Customers(
            age=age.astype(np.int32),
            income=income,
            tenure_months=tenure.astype(np.int32),
            monthly_charges=monthly,
            total_charges=total,
            plan=plan.astype(np.int32),
            probability=probability,
            churned=draw["u_label"] < probability,
        )

    def rows(self, seed: int, first: int, count: int) -> Customers:
        """Return customers first to first + count - 1."""
        if count == 0:
            return self.block(seed, 0).take(slice(0, 0))
        start_block = first // self.block_size
        last_block = (first + count - 1) // self.block_size
        blocks = [self.block(seed, index) for index in range(start_block, last_block + 1)]
        start = first - start_block * self.block_size
        return Customers.concatenate(blocks).take(slice(start, start + count))

    def _probability(
        self,
        age: NDArray[np.float64],
        income: NDArray[np.float64],
        tenure: NDArray[np.float64],
        monthly: NDArray[np.float64],
        plan: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        odds = self.log_odds

        def scaled(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
            scale = odds["scale"][name]
            result: NDArray[np.float64] = (values - scale["center"]) / scale["width"]
            return result

        tenure, monthly = scaled("tenure_months", tenure), scaled("monthly_charges", monthly)
        z = (
            odds["intercept"]
            + odds["tenure_months"] * tenure
            + odds["monthly_charges"] * monthly
            + odds["age"] * scaled("age", age)
            + odds["income"] * scaled("income", income)
            + np.asarray(odds["plan"])[plan]
            + odds["tenure_months_x_monthly_charges"] * tenure * monthly
        )
        result: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-z))
        return result
