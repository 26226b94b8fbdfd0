"""What every dashboard has: its variables, the links to the others, the alerts drawn into its graphs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    DashboardCursorSync,
    DashboardLink,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from deploy.grafana.panels import DATASOURCE, FIRING, RUNBOOKS, Built

TAG = "inference"
ALERT_STEP = "30s"


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a dashboard: the values of a label of a metric, any number of them, or all."""

    name: str
    label: str
    values_of: str  # metric, with selectors if need be

    @property
    def query(self) -> str:
        """As Grafana's Prometheus data source writes it."""
        return f"label_values({self.values_of}, {self.name})"


PIPELINE = Variable("pipeline", "Pipeline", 'inference_buffered_bytes{job="worker"}')
INSTANCE = Variable("instance", "Worker", 'inference_buffered_bytes{job="worker",pipeline=~"$pipeline"}')
GROUP = Variable("group", "Consumer group", "inference_group_lag_records")
MODEL = Variable("model", "Model", "inference_model_info")
VERSION = Variable("version", "Version", 'inference_model_info{model=~"$model"}')
SURFACE = Variable("surface", "Surface", "inference_requests_total")


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, in the order of reading. Their widths fill lines of 24."""

    title: str
    panels: Sequence[Built]


def row(title: str, *panels: Built) -> Row:
    """One row of a board."""
    return Row(title, panels)


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; `uid` is its file's name and its address."""

    uid: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]

    def json(self) -> str:
        """The file."""
        built = (
            dashboard.Dashboard(self.title)
            .uid(self.uid)
            .description(self.description)
            .tags([TAG])
            .readonly()
            .refresh("10s")
            .time("now-30m", "now")
            .timezone("browser")
            .tooltip(DashboardCursorSync.CROSSHAIR)
            .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
            .annotation(_alerts())
            .link(_others())
            .link(_runbooks())
        )
        for variable in self.variables:
            built.with_variable(_choice(variable))
        for part in self.rows:
            built.with_row(dashboard.Row(part.title))
            for panel in part.panels:
                built.with_panel(panel)
        whole = built.build()
        for number, placed in enumerate(whole.panels or [], start=1):
            placed.id_val = number
        return json.dumps(whole, cls=_InSight, indent=2, sort_keys=True) + "\n"


class _InSight(JSONEncoder):
    """As the SDK writes it, but for links and annotations, which it would have hidden in a menu."""

    def default(self, obj: object) -> Any:  # noqa: ANN401 - JSON
        written = super().default(obj)
        if isinstance(obj, DashboardLink | AnnotationQuery):
            del written["placement"]
        return written


def _choice(variable: Variable) -> dashboard.QueryVariable:
    asked: dict[str, object] = {"query": variable.query, "refId": "PrometheusVariableQueryEditor-VariableQuery"}
    everything = VariableOption(selected=True, text="All", value="$__all")
    return (
        dashboard.QueryVariable(variable.name)
        .label(variable.label)
        .query(asked)
        .definition(variable.query)
        .datasource(DATASOURCE)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
        .current(everything)
    )


def _alerts() -> dashboard.AnnotationQuery:
    expr = f"{FIRING} unless {FIRING} offset {ALERT_STEP}"  # where one begins: all of one would colour every graph
    return (
        dashboard.AnnotationQuery()
        .name("Alerts")
        .datasource(DATASOURCE)
        .enable(enable=True)
        .icon_color("red")
        .expr(expr)
        .target(Dataquery().ref_id("Anno").expr(expr).datasource(DATASOURCE))
        .title_format("{{alertname}}")
        .text_format("{{severity}} {{pipeline}}{{group}}{{instance}}")
        .step(ALERT_STEP)
    )


def _others() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("Inference")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(as_dropdown=True)
        .include_vars(include_vars=True)
        .keep_time(keep_time=True)
    )


def _runbooks() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("Runbooks")
        .type(DashboardLinkType.LINK)
        .icon("doc")
        .url(f"{RUNBOOKS}/README.md")
        .target_blank(target_blank=True)
    )


def files(boards: Iterable[Board]) -> dict[str, str]:
    """File name → content."""
    return {f"{board.uid}.json": board.json() for board in boards}
