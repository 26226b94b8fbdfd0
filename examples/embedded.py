"""The core as a library: a version from a store, in ten lines. No Kafka, no server.

inference-worker models train churn --store var/models
python examples/embedded.py var/models
"""

import sys

from app.embed import load

churn = load(sys.argv[1] if sys.argv[1:] else "var/models", "churn")
customers = [
    {"age": 42, "income": 52_000, "tenure_months": 3, "monthly_charges": 95, "total_charges": 285, "plan": "basic"},
    {"age": 17, "income": 12_000, "tenure_months": 1, "monthly_charges": 20, "total_charges": None, "plan": "gold"},
]
for answer in churn.predict(customers):
    print(answer["rejected_message"] or f"{answer['probability']:.3f} by version {answer['model_version']}")
