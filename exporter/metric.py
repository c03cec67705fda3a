"""One row of a metric table, and how its samples become text.

The text of a sample line is the same in the text format 0.0.4 and in OpenMetrics 1.0; only the
headers of a family differ. So lines are written once, when a value changes, and serve both.
"""

from __future__ import annotations

import hashlib
import math
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


def render(table: Table[T], identity: Identity, snapshot: T) -> tuple[str, ...]:
    """The sample lines of one snapshot, a text for each row of the table ("" where none)."""
    return tuple(_lines(metric, identity, metric.samples(snapshot)) for metric in table.metrics)


def render_group(table: Table[T], identity: Identity, snapshots: Iterable[T]) -> tuple[str, ...]:
    """The sample lines of many snapshots merged into one, a text for each row of the table."""
    members = list(snapshots)
    return tuple(
        _lines(metric, identity, merged(metric, members) if metric.merge else ())
        for metric in table.metrics
    )


def merged(metric: Metric[T], snapshots: Iterable[T]) -> Iterable[Sample]:
    """One sample for each set of label values that any of the snapshots has."""
    values: dict[tuple[str, ...], list[float]] = {}
    for snapshot in snapshots:
        for labels, value in metric.samples(snapshot):
            values.setdefault(labels, []).append(value)
    assert metric.merge is not None
    return [(labels, metric.merge(values[labels])) for labels in sorted(values)]


def _lines(metric: Metric[T], identity: Identity, samples: Iterable[Sample]) -> str:
    prefix = ",".join([f'{name}="{escape(value)}"' for name, value in identity])
    if metric.type == "histogram":
        return "".join([_histogram_line(metric, prefix, *sample) for sample in samples])
    return "".join(
        [
            _line(metric.name, prefix, _labels(metric.labels, values), value)
            for values, value in samples
        ]
    )


def _histogram_line(metric: Metric[T], identity: str, values: tuple[str, ...], value: float) -> str:
    *own, suffix, bound = values
    names, given = metric.labels, tuple(own)
    if bound:
        names, given = (*names, "le"), (*given, bound)
    return _line(metric.name + suffix, identity, _labels(names, given), value)


def _line(name: str, identity: str, labels: str, value: float) -> str:
    both = f"{identity},{labels}" if identity and labels else identity or labels
    return (
        f"{name}{{{both}}} {format_value(value)}\n" if both else f"{name} {format_value(value)}\n"
    )


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    # Strict: a value too many or too few would silently make another series.
    return ",".join(
        [f'{name}="{escape(value)}"' for name, value in zip(names, values, strict=True)]
    )


# A NUL is legal, and where it stands Prometheus takes the exposition to be over.
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"', "\0": "\ufffd"})

MAX_LABEL = 512
"""Characters of a label value. Ids of the service have 64 at most, display names 1,024."""


def escape(value: str) -> str:
    """A label value between its quotes. Any text is legal there but a lone surrogate.

    One that is too long is cut, and ends in a digest of the whole: two stay two.
    """
    text = value.encode("utf-8", "replace")
    if len(value) > MAX_LABEL:
        digest = hashlib.sha256(text).hexdigest()[:16]
        return escape(f"{value[: MAX_LABEL - 20]}... {digest}")
    return text.decode().translate(_ESCAPES)


def format_value(value: float) -> str:
    """A sample's value; whole numbers without a point."""
    if isinstance(value, int):
        # What no double can hold is refused by Prometheus, and the whole exposition with it.
        if abs(value) < 2**1023:
            return str(int(value))
        value = math.inf if value > 0 else -math.inf
    if math.isfinite(value):
        return repr(value)
    if math.isnan(value):
        return "NaN"
    return "+Inf" if value > 0 else "-Inf"


def state_set(known: tuple[str, ...], current: str | None) -> Iterable[Sample]:
    """One sample for each known state, 1 for the current one and 0 for the others.

    A state that is not known adds a sample of its own; None, no state, gives no samples.
    """
    if current is None:
        return
    for state in known:
        yield (state,), int(state == current)
    if current not in known:
        yield (current,), 1


def present(*samples: tuple[tuple[str, ...], float | None]) -> Iterable[Sample]:
    """The samples that have a value: what the service did not give has no series."""
    for labels, value in samples:
        if value is not None:
            yield labels, value
