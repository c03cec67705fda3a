"""Queries of a dashboard's JSON as Grafana sends them: with values in place of variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ALL = "$__all"

Choice = str | Sequence[str]
"""The value of a variable, or several of them; ALL is what All stands for."""


@dataclass(frozen=True)
class Resolution:
    """What Grafana takes from the size of a panel, the time shown, and the data source."""

    range_seconds: int
    scrape_seconds: int
    points: int = 300

    @property
    def step(self) -> int:
        """Seconds from one point of a line to the next."""
        return max(self.scrape_seconds, self.range_seconds // self.points)

    @property
    def values(self) -> Mapping[str, str]:
        """Grafana's own variables."""
        rate = max(self.step + self.scrape_seconds, 4 * self.scrape_seconds)
        return {"__range": f"{self.range_seconds}s", "__rate_interval": f"{rate}s"}


@dataclass(frozen=True)
class Target:
    """One query of one panel."""

    board: str
    panel: Mapping[str, Any]
    ref_id: str
    expression: str
    instant: bool

    @property
    def name(self) -> str:
        """Where it stands."""
        return f"{self.board}: {self.panel['title']} {self.ref_id}"


def targets(
    board: Mapping[str, Any], chosen: Mapping[str, Choice], resolution: Resolution
) -> Iterator[Target]:
    """All queries of a dashboard; a variable that is not chosen is as the dashboard opens."""
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            expression = interpolate(target["expr"], board, chosen, resolution)
            instant = bool(target.get("instant"))
            yield Target(board["uid"], panel, target["refId"], expression, instant)


def interpolate(
    text: str, board: Mapping[str, Any], chosen: Mapping[str, Choice], resolution: Resolution
) -> str:
    """A query with values in place of variables. KeyError where there is no such variable."""
    values = dict(resolution.values)
    for variable in board["templating"]["list"]:
        if variable["type"] != "datasource":
            choice = chosen.get(variable["name"], variable["current"]["value"])
            values[variable["name"]] = _value(variable, choice)
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], text)


def variable_query(text: str) -> tuple[str, str]:
    """Selector and label of a `label_values(selector, label)`."""
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", text)
    if found is None:
        raise ValueError(f"no label_values: {text}")
    return found[1], found[2]


def _value(variable: Mapping[str, Any], choice: Choice) -> str:
    if choice == ALL:
        return str(variable["allValue"])
    if not variable["multi"]:
        return str(choice)
    chosen = [choice] if isinstance(choice, str) else choice
    escaped = [re.sub(r"([$^*+?.()|{}\[\]])", r"\\\\\1", each) for each in chosen]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"
