"""What most people begin with: a pydantic model in, `predict_proba` of one row on a worker thread, a dict out.

python plain_server.py PORT
"""

import os
import sys

import joblib
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field

PLANS = ("basic", "standard", "premium")


class Churn(BaseModel):
    age: int = Field(ge=18, le=120)
    income: float
    tenure_months: int
    monthly_charges: float
    total_charges: float = 846.0
    plan: str


class Request(BaseModel):
    features: Churn


app, model = FastAPI(), joblib.load(os.environ["MODEL"])


@app.post("/predict")
def predict(request: Request):
    given = request.features
    row = [given.age, given.income, given.tenure_months, given.monthly_charges, given.total_charges]
    row += [float(given.plan == plan) for plan in PLANS]
    probabilities = model.predict_proba(np.array([row], np.float32))[0]
    winner = int(probabilities.argmax())
    return {"prediction": winner, "probabilities": probabilities.tolist(), "confidence": float(probabilities[winner])}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
