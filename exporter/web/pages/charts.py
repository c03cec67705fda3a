"""The geometry of bars and charts; the templates draw them as SVG."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from exporter.state.history import Point

WIDTH, HEIGHT = 320, 96
"""Size of a chart, in the units of its template."""

_CHARTS = (
    ("active", "Queued tasks", "active"),
    ("running", "Running tasks", "running"),
    ("succeeded", "Succeeded tasks", "succeeded"),
    ("failed", "Failed tasks", "failed"),
    ("failed_nodes", "Nodes with failed preparation", "failed"),
)
"""Field of a point, title and CSS class of each chart."""


@dataclass(frozen=True)
class Chart:
    """A step line from the first known value to now. `line`, `area`: SVG paths."""

    title: str
    kind: str
    values: list[int]
    minutes: int
    line: str
    area: str


def charts(points: Sequence[Point], now: str) -> Iterator[Chart]:
    """The charts of a job's history, which has points. Each chart has its own scale."""
    times = [_seconds(point.time) for point in points]
    for field, title, kind in _CHARTS:
        values = [getattr(point, field) for point in points]
        known = [(time, n) for time, n in zip(times, values, strict=True) if n is not None]
        if known:
            yield _chart(title, kind, times[0], known, _seconds(now))


def _seconds(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def _chart(
    title: str, kind: str, start: float, known: Sequence[tuple[float, int]], now: float
) -> Chart:
    values = [value for _, value in known]
    span, most = max(1.0, now - start), max(values) or 1

    def x(time: float) -> str:
        return f"{WIDTH * (time - start) / span:.1f}"

    def y(value: int) -> str:
        return f"{HEIGHT - 2 - (HEIGHT - 4) * value / most:.1f}"

    begin = x(known[0][0])
    line = f"M{begin},{y(values[0])}"
    for (_, before), (time, value) in pairwise(known):
        if value != before:
            line += f"H{x(time)}V{y(value)}"
    line += f"H{x(now)}"
    return Chart(title, kind, values, round(span / 60), line, f"{line}V{HEIGHT}H{begin}Z")


def shares(counts: Iterable[tuple[str, int]], whole: int) -> Iterator[tuple[str, str, str]]:
    """CSS class, position and width in percent of each part of a bar. `counts`: by CSS class."""
    left = 0.0
    for kind, count in counts:
        if count:
            width = 100 * count / whole
            yield kind, f"{left:.2f}", f"{width:.2f}"
            left += width
