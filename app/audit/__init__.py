"""The audit trail: every prediction, as it was published, in Parquet files that hold each record exactly once."""
