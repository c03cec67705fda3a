"""What all dashboards are made of: queries, panels, variables, and how they become Grafana's JSON.

The layout is Grafana's grid of 24 columns; panels follow each other in it from left to right.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

TAG = "azure-batch"
RUNBOOKS = "https://github.com/azure-batch-exporter/azure-batch-exporter/blob/main/deploy/runbooks/"
DATASOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")

PER_MINUTE = "cpm"  # Grafana's unit: counts per minute
GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "#808080"

Link = tuple[str, str]
"""What it says, and the URL."""


@dataclass(frozen=True)
class Query:
    """PromQL with Grafana's variables. `legend`: of a series, or the head of a table's column.

    `scenario`: of the simulated account, in which it has data.
    """

    expression: str
    legend: str = ""
    scenario: str = "steady"


@dataclass(frozen=True)
class Column:
    """How a column of a table is shown. `name`: of a label, or the legend of a query."""

    name: str
    title: str = ""
    unit: str = ""
    decimals: int | None = None
    width: int | None = None
    """Pixels; else the columns share what is left."""
    alarming: bool = False
    """Red where it is 1 or more."""
    link: Link | None = None
    mappings: tuple[tuple[str, str], ...] = ()
    """Values and the texts that stand for them."""


@dataclass(frozen=True)
class Panel:
    """One panel.

    `empty`: what it means when there is no data; shown in its place. `runbook`: of the alert that
    is about the same.
    """

    title: str
    description: str
    empty: str
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = 12
    height: int = 8
    decimals: int | None = None
    links: tuple[Link, ...] = ()
    runbook: str = ""

    def build(self, number: int) -> models.Panel:
        """Grafana's panel, with this id."""
        raise NotImplementedError

    def _common(self, panel: Any, number: int, *, instant: bool) -> Any:
        """What all kinds of panel have; the SDK's builders have no type in common."""
        panel.id(number).title(self.title).description(self.description).no_value(self.empty)
        panel.unit(self.unit).span(self.width).height(self.height).datasource(DATASOURCE)
        if self.decimals is not None:
            panel.decimals(self.decimals)
        runbooks = [("Runbook", f"{RUNBOOKS}{self.runbook}.md")] if self.runbook else []
        if self.links or runbooks:
            panel.links([_external(link) for link in (*self.links, *runbooks)])
        for ref_id, query in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", self.queries, strict=False):
            target = prometheus.Dataquery().expr(query.expression).ref_id(ref_id)
            target = target.instant() if instant else target.range()
            if self._as_table:
                target.format(PromQueryFormat.TABLE)
            else:
                target.legend_format(query.legend)
            panel.with_target(target.datasource(DATASOURCE))
        return panel

    @property
    def _as_table(self) -> bool:
        return False


@dataclass(frozen=True)
class Lines(Panel):
    """Series over time. `stacked`: where their sum says something, too."""

    stacked: bool = False
    beside: bool = False
    """The legend stands at the right: of many names."""
    bridged: bool = False
    """Points are connected over gaps: what has values only while something ends."""
    colors: tuple[tuple[str, str], ...] = ()
    """Names of series and their colours; of the others Grafana chooses."""

    def build(self, number: int) -> models.Panel:
        panel = self._common(timeseries.Panel(), number, instant=False)
        panel.min(0).line_width(1).fill_opacity(35 if self.stacked else 8)
        panel.show_points(common.VisibilityMode.NEVER)
        if self.bridged:
            panel.span_nulls(True)
        place = common.LegendPlacement.RIGHT if self.beside else common.LegendPlacement.BOTTOM
        panel.legend(
            common_builders.VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(place)
        )
        panel.tooltip(
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
        if self.stacked:
            panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
        for name, color in self.colors:
            value = {"mode": "fixed", "fixedColor": color}
            panel.override_by_name(name, [models.DynamicConfigValue("color", value)])
        built: models.Panel = panel.build()
        return built


@dataclass(frozen=True)
class Figure(Panel):
    """One large number, or one for each series.

    `steps`: from which value on it has which colour; the first has none. `texts`: what stands for
    a value, and its colour.
    """

    width: int = 3
    height: int = 4
    steps: tuple[tuple[float | None, str], ...] = ((None, BLUE),)
    texts: tuple[tuple[str, str, str], ...] = ()
    history: bool = False

    def build(self, number: int) -> models.Panel:
        panel = self._common(stat.Panel(), number, instant=not self.history)
        panel.thresholds(_thresholds(self.steps)).color_scheme(_by_threshold())
        panel.color_mode(common.BigValueColorMode.VALUE)
        area = common.BigValueGraphMode.AREA if self.history else common.BigValueGraphMode.NONE
        panel.graph_mode(area).reduce_options(
            common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
        )
        if self.texts:
            panel.mappings([_value_map((value, text, color) for value, text, color in self.texts)])
        built: models.Panel = panel.build()
        return built


@dataclass(frozen=True)
class Rows(Panel):
    """A table: labels and one column for each query, in rows by the labels they have in common.

    `columns` says in which order and how; what is not named there is hidden.
    """

    columns: tuple[Column, ...] = ()
    sort: str = ""
    width: int = 24

    @property
    def _as_table(self) -> bool:
        return True

    def build(self, number: int) -> models.Panel:
        panel = self._common(table.Panel(), number, instant=True)
        panel.filterable(True)
        sources = self._sources()
        panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        panel.with_transformation(
            models.DataTransformerConfig(
                id_val="filterFieldsByName",
                options={"include": {"names": list(sources.values())}},
            )
        )
        panel.with_transformation(
            models.DataTransformerConfig(
                id_val="organize",
                options={
                    "indexByName": {source: n for n, source in enumerate(sources.values())},
                    "renameByName": {
                        sources[column.name]: column.title or column.name for column in self.columns
                    },
                },
            )
        )
        # What stands for an empty table would stand in each empty cell, too.
        panel.override_by_regexp("/.*/", [models.DynamicConfigValue("noValue", "")])
        for column in self.columns:
            properties = _column_properties(column)
            if properties:
                panel.override_by_name(column.title or column.name, properties)
        if self.sort:
            descending = common_builders.TableSortByFieldState()
            panel.sort_by([descending.display_name(self.sort).desc(True)])
        built: models.Panel = panel.build()
        return built

    def _sources(self) -> dict[str, str]:
        """What Grafana calls each column, in their order."""
        legends = [query.legend for query in self.queries]
        # A single query's value has no letter.
        letters = ["Value"] if len(legends) == 1 else [f"Value #{chr(65 + n)}" for n in range(26)]
        values = dict(zip(legends, letters, strict=False))
        return {column.name: values.get(column.name, column.name) for column in self.columns}


@dataclass(frozen=True)
class Section:
    """Panels below a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """What can be chosen at the top: values of a label (`query`), or of a list (`choices`).

    `everything`: the regular expression that stands for All.
    """

    name: str
    label: str
    description: str
    query: str = ""
    everything: str = ""
    choices: tuple[str, ...] = ()

    def build(self) -> Any:
        """Grafana's variable; the SDK's builders have no type in common."""
        if self.choices:
            options = [
                models.VariableOption(text=each, value=each, selected=each == self.choices[0])
                for each in self.choices
            ]
            listed = builders.CustomVariable(self.name).values(",".join(self.choices))
            listed.current(options[0]).options(options)
            return listed.label(self.label).description(self.description)
        every = models.VariableOption(text="All", value="$__all", selected=True)
        return (
            builders.QueryVariable(self.name)
            .label(self.label)
            .description(self.description)
            .datasource(DATASOURCE)
            .query({"query": self.query, "refId": "PrometheusVariableQueryEditor-VariableQuery"})
            .definition(self.query)
            .multi(True)
            .include_all(True)
            .all_value(self.everything)
            .current(every)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
        )


@dataclass(frozen=True)
class Board:
    """One dashboard. `uid`: fixed for ever, links and bookmarks have it."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    sections: tuple[Section, ...]
    since: str = "now-3h"

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in their order."""
        return tuple(panel for section in self.sections for panel in section.panels)

    def model(self) -> dict[str, Any]:
        """Grafana's dashboard model, as it is imported and provisioned."""
        board = builders.Dashboard(self.title).uid(self.uid).description(self.description)
        board.tags([TAG]).readonly().timezone("browser").time(self.since, "now").refresh("1m")
        board.tooltip(models.DashboardCursorSync.CROSSHAIR).version(1)
        board.link(
            builders.DashboardLink("Azure Batch dashboards")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
            .placement("")
        ).link(_external(("Runbooks", RUNBOOKS)))
        source = builders.DatasourceVariable("datasource").type("prometheus").label("Data source")
        board.with_variable(source)
        for variable in self.variables:
            board.with_variable(variable.build())
        number = 0
        for section in self.sections:
            number += 1
            board.with_row(builders.Row(section.title).id(number))
            for panel in section.panels:
                number += 1
                board.with_panel(_Numbered(panel, number))
        model: dict[str, Any] = json.loads(JSONEncoder().encode(board.build()))
        return {"id": None, **model}

    def text(self) -> str:
        """The file."""
        return json.dumps(self.model(), indent=2, sort_keys=True) + "\n"


@dataclass
class _Numbered(Builder[models.Panel]):
    """What the SDK lays out: a panel and its id."""

    panel: Panel
    number: int

    def build(self) -> models.Panel:
        return self.panel.build(self.number)


def board_link(uid: str, **variables: str) -> str:
    """URL of another dashboard with these variables and the same data source and time."""
    given = "".join(f"&var-{name}=${{{value}:percentencode}}" for name, value in variables.items())
    return f"/d/{uid}?${{__url_time_range}}&${{datasource:queryparam}}{given}"


def _external(link: Link) -> builders.DashboardLink:
    title, url = link
    built = builders.DashboardLink(title).type(models.DashboardLinkType.LINK).url(url)
    return built.placement("").target_blank(url.startswith("https:"))


def _thresholds(steps: Iterable[tuple[float | None, str]]) -> builders.ThresholdsConfig:
    config = builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE)
    return config.steps([models.Threshold(value=value, color=color) for value, color in steps])


def _by_threshold() -> builders.FieldColor:
    return builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)


def _value_map(texts: Iterable[tuple[str, str, str]]) -> models.ValueMap:
    options = {
        value: models.ValueMappingResult(text=text, color=color or None)
        for value, text, color in texts
    }
    return models.ValueMap(options=options)


def _column_properties(column: Column) -> Sequence[models.DynamicConfigValue]:
    found: dict[str, object] = {}
    if column.unit:
        found["unit"] = column.unit
    if column.width is not None:
        found["custom.width"] = column.width
    if column.decimals is not None:
        found["decimals"] = column.decimals
    if column.link is not None:
        title, url = column.link
        found["links"] = [{"title": title, "url": url, "targetBlank": False}]
    if column.alarming:
        found["thresholds"] = {
            "mode": "absolute",
            "steps": [{"value": None, "color": "text"}, {"value": 1, "color": RED}],
        }
        found["color"] = {"mode": "thresholds"}
        found["custom.cellOptions"] = {"type": "color-text"}
    if column.mappings:
        options = {value: {"text": text} for value, text in column.mappings}
        found["mappings"] = [{"type": "value", "options": options}]
    return [models.DynamicConfigValue(name, value) for name, value in found.items()]
