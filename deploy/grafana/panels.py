"""What dashboards are made of: a question to Prometheus, and the few kinds of panel that show its answer.

Names of metrics are written out in the questions: whoever looks for a metric's users finds them here, and a test asks
every one of a real Prometheus.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, dashboard, stat, table, timeseries
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    DataSourceRef,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DashboardSpecialValueMapOptions,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Panel,
    SpecialValueMap,
    SpecialValueMatch,
    Threshold,
    ThresholdsMode,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Built = Builder[Panel]

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
RUNBOOKS = "/public/runbooks"  # where Grafana serves docs/runbooks if that is mounted into its public folder

# Selectors: what the variables of a dashboard leave over. A server counts its answers in the same metrics as a worker.
WORKER = 'job="worker",instance=~"$instance"'
PIPELINE = 'pipeline=~"$pipeline"'
WORKERS_PIPELINE = f"{PIPELINE},{WORKER}"
GROUP = 'group=~"$group"'
MODEL = 'model=~"$model",version=~"$version"'
SERVER = 'job="server"'
SURFACE = 'surface=~"$surface"'

FIRING = 'ALERTS{alertname=~"Inference.+",alertstate="firing"}'

# What things are called is what colour they have, on every board: by the order of series a failure would be green.
OUTCOMES = {
    ".*(predicted|committed|hit)": "green",
    ".*(dead_lettered|aborted|error)": "red",
    ".*(skipped|expired|dropped)": "orange",
    ".*miss": "blue",
}
# What a scale reaches to at least, by unit.
SMALL = {"short": 1.0, "recps": 1.0, "reqps": 1.0, "cps": 1.0, "percentunit": 0.05}
NOTHING = "none"  # in the place of "No data", which reads like a fault of the board
# Nothing is neither good nor bad: without this it would have the colour of the lowest values.
NO_NUMBER = DashboardSpecialValueMapOptions(
    SpecialValueMatch.NULL_AND_NAN, ValueMappingResult(text=NOTHING, color="text", index=0)
)

OR_NONE = " or vector(0)"  # a counter that never counted is not there, nor is `up` of a fleet that is gone

MIN_COLUMN = 50  # pixels, of a table: at its default of 150 the last columns of a narrow one are out of sight

RATE = "$__rate_interval"  # four scrapes at least: Grafana knows how often there is one


@dataclass(frozen=True, slots=True)
class Query:
    """One question. legend: names a series of the answer, `{{label}}` is filled in."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a value is a warning, and from where on bad; with a falling scale, below which."""

    warning: float
    bad: float
    falling: bool = False

    def thresholds(self) -> dashboard.ThresholdsConfig:
        """Green, orange and red, in Grafana's order: from below."""
        colours = ("red", "orange", "green") if self.falling else ("green", "orange", "red")
        bounds = (None, *sorted((self.warning, self.bad)))
        steps = [Threshold(value=bound, color=colour) for bound, colour in zip(bounds, colours, strict=True)]
        return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def rate(counter: str, where: str, by: str = "") -> str:
    """A counter's growth a second, summed by these labels."""
    return f"sum{_by(by)} (rate({counter}{{{where}}}[{RATE}]))"


def growth(counter: str, where: str, window: str, by: str = "") -> str:
    """By how much a counter grew in this time, summed by these labels."""
    return f"sum{_by(by)} (increase({counter}{{{where}}}[{window}]))"


def worst(gauge: str, where: str, by: str = "") -> str:
    """The largest value by these labels; also the one of two that show the same while it changes hands."""
    return f"max{_by(by)} ({gauge}{{{where}}})"


def total(gauge: str, where: str, by: str = "") -> str:
    """The sum by these labels."""
    return f"sum{_by(by)} ({gauge}{{{where}}})"


def percentile(share: float, histogram: str, where: str, by: str = "") -> str:
    """The value that this share of what was observed does not exceed, as precise as the buckets are."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', where, labels)})"


def percentiles(histogram: str, where: str) -> tuple[Query, ...]:
    """Median, 95 % and 99 %."""
    return tuple(Query(percentile(share, histogram, where), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99))


def mean(histogram: str, where: str, by: str = "") -> str:
    """What was observed, on average."""
    return f"{rate(f'{histogram}_sum', where, by)} / {rate(f'{histogram}_count', where, by)}"


def number(
    title: str,
    meaning: str,
    query: Query,
    *,
    unit: str,
    limits: Limits | None = None,
    width: int = 4,
    height: int = 4,
    runbook: str | None = None,
) -> Built:
    """One figure, of this moment: the last one of a time that is over would hide that there is none."""
    panel = (
        stat.Panel()
        .unit(unit)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False))
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.VALUE if limits else BigValueColorMode.NONE)
        .no_value(NOTHING)
        .mappings([SpecialValueMap(NO_NUMBER)])
    )
    if limits:
        panel.thresholds(limits.thresholds())
    return _dressed(panel, title, meaning, (query,), width, height, runbook, asked=_asked_now)


def graph(
    title: str,
    meaning: str,
    *queries: Query,
    unit: str,
    limits: Limits | None = None,
    stacked: bool = False,
    most: float | None = None,
    colours: Mapping[str, str] | None = None,
    width: int = 12,
    runbook: str | None = None,
) -> Built:
    """Lines over time. limits: drawn as lines of their own. most: the upper end of the scale.

    colours: by regular expressions over the whole name of a series; the others have theirs by their order.
    """
    panel = (
        timeseries.Panel()
        .unit(unit)
        .min(0)
        .line_width(1)
        .fill_opacity(40 if stacked else 8)
        .show_points(VisibilityMode.NEVER)
        .no_value(NOTHING)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if most is not None:
        panel.max(most)
    elif unit in SMALL:  # else a scale of nothing but zeros ends at 100
        panel.axis_soft_max(min(1.0, 2 * limits.bad) if limits else SMALL[unit])
    for pattern, colour in (colours or {}).items():
        fixed = {"mode": FieldColorModeId.FIXED, "fixedColor": colour}
        panel.override_by_regexp(f"^{pattern}$", [DynamicConfigValue(id_val="color", value=fixed)])
    if limits:
        panel.thresholds(limits.thresholds())
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
        panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    return _dressed(panel, title, meaning, queries, width, 8, runbook)


def listing(
    title: str,
    meaning: str,
    query: Query,
    *,
    columns: Sequence[str],
    value: str,
    widest: Mapping[str, int] | None = None,
    runbook_of: str | None = None,
    unit: str = "short",
    width: int = 12,
    runbook: str | None = None,
) -> Built:
    """A table of what is now. columns: the labels shown, in this order, and then the value under its own name.

    widest: pixels of columns that need more than their share. runbook_of: the column each of whose values is the name
    of a page of the runbooks, and leads there.
    """
    order = {name: position for position, name in enumerate((*columns, "Value"))}
    shown = {
        "excludeByName": {"Time": True},
        "indexByName": order,
        "renameByName": {"Value": value},
    }
    panel = (
        table.Panel()
        .unit(unit)
        .with_transformation(DataTransformerConfig(id_val="organize", options=shown))
        .min_width(MIN_COLUMN)
        .no_value(NOTHING)
    )
    for name, pixels in (widest or {}).items():
        panel.override_by_name(name, [DynamicConfigValue(id_val="custom.width", value=pixels)])
    if runbook_of:
        page = {"title": "Runbook", "url": f"{RUNBOOKS}/${{__value.raw}}.md", "targetBlank": True}
        panel.override_by_name(runbook_of, [DynamicConfigValue(id_val="links", value=[page])])
    return _dressed(panel, title, meaning, (query,), width, 8, runbook, asked=_asked_for_rows)


def _dressed(
    panel: stat.Panel | timeseries.Panel | table.Panel,
    title: str,
    meaning: str,
    queries: Sequence[Query],
    width: int,
    height: int,
    runbook: str | None,
    *,
    asked: Callable[[Dataquery], Dataquery] = Dataquery.range,
) -> Built:
    """The panel with what every panel has. asked: over the time shown if nothing else is said."""
    panel.title(title).description(meaning).datasource(DATASOURCE).span(width).height(height)
    if runbook:
        link = dashboard.DashboardLink(f"Runbook: {runbook}").type(DashboardLinkType.LINK)
        panel.links([link.url(f"{RUNBOOKS}/{runbook}.md").target_blank(target_blank=True)])
    for ref_id, query in zip("ABCDEFGH", queries, strict=False):
        target = Dataquery().ref_id(ref_id).datasource(DATASOURCE).expr(query.expr).legend_format(query.legend)
        panel.with_target(asked(target))
    return panel


def _asked_now(target: Dataquery) -> Dataquery:
    return target.instant()


def _asked_for_rows(target: Dataquery) -> Dataquery:
    return target.instant().format(PromQueryFormat.TABLE)


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
