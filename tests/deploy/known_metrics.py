"""Every metric of the product, from its own tables, and what PromQL may say about each."""

import re

from app.observe.lag_metrics import LAG_TABLE
from app.observe.metrics import PROCESS_TABLE, TABLE
from app.observe.monitor_metrics import MONITOR_TABLE

SPECS = {spec.name: spec for spec in (*TABLE, *PROCESS_TABLE, *MONITOR_TABLE, *LAG_TABLE)}
SERIES = {
    name + part: spec
    for name, spec in SPECS.items()
    for part in (("_bucket", "_sum", "_count") if spec.kind == "histogram" else ("",))
}
_NAME = re.compile(r"(?<![\w:$])(?:inference|process)_[a-z_]+(?![\w:])")


def metrics_in(text):
    """The names in it that look like metrics of ours; what a rule records has a colon in its name and is none."""
    return set(_NAME.findall(text))


def families(series):
    """Of series, the metrics that they belong to."""
    return {SERIES[name].name for name in series}


def misused(expr):
    """Series in the expression that are asked for in a way that their kind has no answer to."""
    grown = set(re.findall(r"(?:rate|increase)\((\w+)", expr))
    counters = {name for name in metrics_in(expr) if name in SERIES and SERIES[name].kind != "gauge"}
    gauges = metrics_in(expr) - counters
    return (grown & gauges) | {name for name in counters if name not in grown and SPECS.get(name) is None}
