"""One row of a metric table, and what samples it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Sample = tuple[tuple[str, ...], float]
"""The values of a row's own labels, and the sample's value."""

Identity = tuple[tuple[str, str], ...]
"""Whose snapshot it is: names and values of the labels that stand before a row's own."""

Merge = Callable[[Iterable[float]], float]
"""What a group shows of its jobs' values with the same labels."""


@dataclass(frozen=True)
class Metric(Generic[T]):
    """One family: a row of a collector's table.

    `help`: a sentence that a stranger understands, without a full stop.
    `source`: API operation and field that the value comes from; it ends up in HELP.
    `labels`: the row's own labels; those of the table's identity come before them.
    `samples`: label values and value of each sample of one snapshot. Unknown is absent. Those of a
    histogram have two label values more: the suffix of the sample's name, and `le` or "".
    `merge`: how the values of a group's jobs become the group's; None: a group does not have it.
    """

    name: str
    type: Literal["gauge", "counter", "histogram"]
    help: str
    source: str
    labels: tuple[str, ...]
    samples: Callable[[T], Iterable[Sample]]
    merge: Merge | None = sum

    @property
    def documentation(self) -> str:
        """The text of HELP."""
        return f"{self.help}. Source: {self.source}; polled, not fetched on scrape."

    def header(self, *, openmetrics: bool) -> str:
        """HELP and TYPE. OpenMetrics names a counter without the suffix of its sample."""
        name = self.name.removesuffix("_total") if openmetrics else self.name
        return f"# HELP {name} {self.documentation}\n# TYPE {name} {self.type}\n"


@dataclass(frozen=True)
class Table(Generic[T]):
    """The families that come from one kind of snapshot.

    `identity`: names of the labels that say whose snapshot it is, on every row. A group has
    `job_group` in place of `job_id`.
    """

    identity: tuple[str, ...]
    metrics: tuple[Metric[T], ...]


class Excluded:
    """Names of metrics that are not wanted, with `*` as wildcard."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._patterns = tuple(patterns)

    def __contains__(self, name: object) -> bool:
        return any(fnmatchcase(str(name), pattern) for pattern in self._patterns)


def merged(metric: Metric[T], snapshots: Iterable[T]) -> Iterable[Sample]:
    """One sample for each set of label values that any of the snapshots has."""
    values: dict[tuple[str, ...], list[float]] = {}
    for snapshot in snapshots:
        for labels, value in metric.samples(snapshot):
            values.setdefault(labels, []).append(value)
    assert metric.merge is not None
    return [(labels, metric.merge(values[labels])) for labels in sorted(values)]


def state_set(known: tuple[str, ...], current: str | None) -> Iterable[Sample]:
    """One sample for each known state, 1 for the current one and 0 for the others.

    A state that is not known adds a sample of its own; None, no state, gives no samples.
    """
    if current is None:
        return []
    samples: list[Sample] = [((state,), 1 if state == current else 0) for state in known]
    if current not in known:
        samples.append(((current,), 1))
    return samples


def present(*samples: tuple[tuple[str, ...], float | None]) -> Iterable[Sample]:
    """The samples that have a value: what the service did not give has no series."""
    return [(labels, value) for labels, value in samples if value is not None]
