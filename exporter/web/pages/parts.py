"""Parts that several pages have: sections, tables, bars, charts and failures."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from itertools import pairwise

from exporter.batch.models import Counts
from exporter.state.failures import Failure
from exporter.state.history import Point
from exporter.web.api.models import Nodes
from exporter.web.pages.html import Child, Html, link, render, tag
from exporter.web.pages.layout import moment, number

WIDTH, HEIGHT = 320, 96
"""Of a chart, in the units of its template."""


def section(name: str, title: str, *content: Child, before: Child = None) -> Html:
    """A part of a page. `name`: the id of its content, which the script renews."""
    return render("section", name=name, title=title, before=before, content=content)


def pair(term: str, *description: Child) -> Html:
    """A term of a list, and what it is."""
    return tag("div", tag("dt", term), tag("dd", *description))


def bar(parts: Sequence[tuple[str, int]], whole: int, label: str) -> Html:
    """Shares of a whole, side by side. `parts`: class and number of each."""
    shapes, left = [], 0.0
    for name, count in parts:
        if count:
            width = 100 * count / whole
            shapes.append(tag("rect", x=f"{left:.2f}", width=f"{width:.2f}", height=8, class_=name))
            left += width
    return render("bar", label=label, shapes=shapes)


def tasks_bar(counts: Counts | None) -> Child:
    """A job's tasks by state."""
    if counts is None:
        return None
    names = ("succeeded", "failed", "running", "active")
    parts = [(name, getattr(counts, name) or 0) for name in names]
    label = ", ".join(f"{count} {name}" for name, count in parts)
    return bar(parts, sum(count for _, count in parts), label)


def nodes(found: Nodes | None) -> Child:
    """Nodes by their preparation or release: succeeded, running, failed."""
    if found is None:
        return number(None)
    shown: list[Child] = [phrase(found.succeeded, "ok")]
    if found.running:
        shown += [", ", phrase(found.running, "running")]
    if found.failed:
        shown += [", ", tag("strong", phrase(found.failed, "failed"), class_="bad")]
    return shown


def phrase(count: int | None, word: str) -> Child:
    """A number and what it is of, on one line."""
    return number(None) if count is None else tag("span", number(count), " ", word, class_="phrase")


def charts(points: Sequence[Point], now: str) -> Child:
    """How a job's numbers changed. Each chart has its own scale."""
    if not points:
        return tag("p", "Nothing was read of this job yet.")
    series: tuple[tuple[str, str, list[int | None]], ...] = (
        ("Queued tasks", "active", [point.active for point in points]),
        ("Running tasks", "running", [point.running for point in points]),
        ("Succeeded tasks", "succeeded", [point.succeeded for point in points]),
        ("Failed tasks", "failed", [point.failed for point in points]),
        ("Nodes with failed preparation", "failed", [point.failed_nodes for point in points]),
    )
    times = [_seconds(point.time) for point in points]
    found = [_chart(title, name, times, values, _seconds(now)) for title, name, values in series]
    return (
        tag("p", "Since ", moment(points[0].time), ". Each chart has its own scale."),
        tag("div", found, class_="charts"),
    )


def _seconds(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def _chart(
    title: str, kind: str, times: Sequence[float], values: Sequence[int | None], now: float
) -> Html | None:
    """A line of steps up to now; None where no value is known."""
    known = [(time, value) for time, value in zip(times, values, strict=True) if value is not None]
    if not known:
        return None
    start, span = times[0], max(1.0, now - times[0])
    first, last, most = known[0][1], known[-1][1], max(value for _, value in known)

    def x(time: float) -> str:
        return f"{WIDTH * (time - start) / span:.1f}"

    def y(value: int) -> str:
        return f"{HEIGHT - 2 - (HEIGHT - 4) * value / (most or 1):.1f}"

    path = f"M{x(known[0][0])},{y(first)}"
    for (_, before), (time, value) in pairwise(known):
        if value != before:
            path += f"H{x(time)}V{y(value)}"
    path += f"H{x(now)}"
    minutes = round(span / 60)
    return render(
        "chart",
        title=title,
        kind=kind,
        last=number(last),
        most=number(most),
        label=f"{title}: from {first} to {last} in {minutes} minutes, at most {most}",
        line=path,
        area=f"{path}V{HEIGHT}H{x(known[0][0])}Z",
    )


def failures(found: Sequence[Failure], *, with_job: bool) -> Child:
    """A table of failures, or that there are none."""
    if not found:
        return tag("p", "None.")
    head = ("Time", *(("Job",) if with_job else ()), "Kind", "Where", "Why", "Exit code", "Message")
    return table("Table of failures", head, [_failure(each, with_job=with_job) for each in found])


def _failure(each: Failure, *, with_job: bool) -> Html:
    job = link(each.job_id, "job", {"account": each.account, "job_id": each.job_id})
    where = each.task_id or " ".join(filter(None, (each.pool_id, each.node_id)))
    return row(
        ("Time", moment(each.time), ""),
        *((("Job", job, "id"),) if with_job else ()),
        ("Kind", each.kind, ""),
        ("Where", where, "id"),
        ("Why", (each.code, " ", tag("small", each.category)), ""),
        ("Exit code", number(each.exit_code), "number"),
        ("Message", each.message or "", "message"),
    )


def table(label: str, head: Iterable[Child], rows: Iterable[Html]) -> Html:
    """A table; on a narrow screen each row is a card. `head`: text, or whole cells."""
    cells = [each if isinstance(each, Html) else tag("th", each, scope="col") for each in head]
    return render("table", label=label, head=cells, rows=rows)


def row(*cells: tuple[str, Child, str]) -> Html:
    """A row: what stands above each cell, the cell, and its class. The first names the row."""
    (label, child, name), *others = cells
    return tag(
        "tr",
        tag("th", child, scope="row", data_label=label, class_=name or None),
        *(tag("td", child, data_label=label, class_=name or None) for label, child, name in others),
    )
