"""One row of a metric table, and what samples it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Labels = tuple[str, ...]
"""The values of a row's own labels."""

Samples = tuple[tuple[Labels, ...], Sequence[float]]
"""The labels of each sample, and the value of each.

They are apart because most jobs have the same labels all the time, and then only values are new.
"""

Columns = tuple[tuple[tuple[Labels, ...], ...], Sequence[Sequence[float]]]
"""The same of each row of a table: first all labels, then all values."""

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
    `samples`: those of one snapshot. Unknown is absent. Those of a histogram have two label values
    more: the suffix of the sample's name, and `le` or "".
    `merge`: how the values of a group's jobs become the group's; None: a group does not have it.
    """

    name: str
    type: Literal["gauge", "counter", "histogram"]
    help: str
    source: str
    labels: tuple[str, ...]
    samples: Callable[[T], Samples]
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

    def reader(self) -> Callable[[T], Columns]:
        """What gives the samples of all rows."""
        rows = [metric.samples for metric in self.metrics]
        return lambda snapshot: columns([samples(snapshot) for samples in rows])


def columns(rows: Sequence[Samples]) -> Columns:
    """The samples of a table, from those of each row."""
    if not rows:
        return (), ()
    labels, values = zip(*rows, strict=True)
    return labels, values


class Excluded:
    """Names of metrics that are not wanted, with `*` as wildcard."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._patterns = tuple(patterns)

    def __contains__(self, name: object) -> bool:
        return any(fnmatchcase(str(name), pattern) for pattern in self._patterns)


def merged(metric: Metric[T], snapshots: Iterable[T]) -> Samples:
    """One sample for each set of label values that any of the snapshots has."""
    merge = metric.merge
    if merge is None:
        return NO_SAMPLES
    found: dict[Labels, list[float]] = {}
    for snapshot in snapshots:
        for labels, value in zip(*metric.samples(snapshot), strict=True):
            found.setdefault(labels, []).append(value)
    ordered = tuple(sorted(found))
    return ordered, [merge(found[labels]) for labels in ordered]


NO_SAMPLES: Samples = ((), ())


_UNLABELLED: tuple[Labels, ...] = ((),)


def only(value: float | None) -> Samples:
    """The one sample of a row without labels; what the service did not give has no series."""
    return NO_SAMPLES if value is None else (_UNLABELLED, (value,))


def info(*labels: str) -> Samples:
    """The one sample of a row whose labels say something, and its value nothing: 1."""
    return (labels,), (1,)


def present(labels: tuple[Labels, ...], values: Sequence[float | None]) -> Samples:
    """The samples that have a value."""
    if None not in values:
        return labels, values  # type: ignore[return-value]  # as just seen
    pairs = zip(labels, values, strict=True)
    return paired((of, value) for of, value in pairs if value is not None)


def paired(samples: Iterable[tuple[Labels, float]]) -> Samples:
    """Samples that were found one by one, in their order."""
    labels, values = [], []
    for of, value in samples:
        labels.append(of)
        values.append(value)
    return tuple(labels), values


@lru_cache(maxsize=1000)
def state_set(known: tuple[str, ...], current: str | None) -> Samples:
    """One sample for each known state, 1 for the current one and 0 for the others.

    A state that is not known adds a sample of its own; None, no state, gives no samples.
    """
    if current is None:
        return NO_SAMPLES
    states = known if current in known else (*known, current)
    return tuple((each,) for each in states), tuple(int(each == current) for each in states)
