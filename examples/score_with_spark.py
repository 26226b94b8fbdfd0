"""Batch scoring with Spark, on one machine or many: `pip install 'kafka-inference-worker[spark]'`, and Java.

    spark-submit examples/score_with_spark.py STORE ROWS.parquet OUT

Every node needs this package, the rows and the store: a bucket, or a folder that all of them see.
"""

import sys

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

from app.embed import arrow_function

store, rows, out = sys.argv[1:]
spark = SparkSession.builder.appName("churn score").config("spark.sql.session.timeZone", "UTC").getOrCreate()
score = arrow_function(store, "churn", key="customer_id", keep=("customer_id",))
events = spark.read.parquet(rows)
given: pa.Schema = to_arrow_schema(events.schema)
events.mapInArrow(score.over, from_arrow_schema(score.schema(given))).write.parquet(out)
