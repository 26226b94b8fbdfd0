"""Batch scoring with Ray Data, on one machine or many: `pip install 'kafka-inference-worker[ray]'`.

    python examples/score_with_ray.py STORE ROWS.parquet OUT

Every node needs this package, the rows and the store: a bucket, or a folder that all of them see.
"""

import sys

import ray

from app.embed import arrow_function

store, rows, out = sys.argv[1:]
score = arrow_function(store, "churn", key="customer_id", keep=("customer_id",))
ray.data.read_parquet(rows).map_batches(score, batch_format="pyarrow", batch_size=65_536).write_parquet(out)
