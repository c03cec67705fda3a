"""The gauges of groups: merged from those of their jobs, changed by what changes in each job.

A group may have thousands of jobs, so it is never added up anew: the values that a job had before
are taken away, and those that it has now are added.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Protocol

from exporter.exposition.body import Exposition
from exporter.exposition.metric import Labels, Merge, Metric, Samples
from exporter.state.account import Owner, identity_of

Place = tuple[str, Owner, str]
"""(account, group, table)."""


class _Merged(Protocol):
    """The values of one series of a group."""

    def add(self, job_id: str, value: float) -> None: ...
    def remove(self, job_id: str, value: float) -> None: ...

    @property
    def value(self) -> float | None:
        """The merged value; None where no job has one."""


class _Sum:
    """Their sum, exact whatever is added and taken away."""

    __slots__ = ("_count", "_infinite", "_total")

    def __init__(self) -> None:
        self._count = 0
        self._total: int | Fraction = 0
        self._infinite: Counter[str] | None = None

    def add(self, _job_id: str, value: float) -> None:
        """Add a value."""
        self._change(value, 1)

    def remove(self, _job_id: str, value: float) -> None:
        """Take away a value that was added."""
        self._change(value, -1)

    def _change(self, value: float, sign: int) -> None:
        self._count += sign
        if isinstance(value, int):
            self._total += sign * value
        elif math.isfinite(value):
            self._total += sign * Fraction(value)
        else:
            self._infinite = self._infinite or Counter()
            self._infinite[repr(value)] += sign

    @property
    def value(self) -> float | None:
        """The sum; whole numbers stay whole."""
        if not self._count:
            return None
        if self._infinite and (found := [n for n, count in self._infinite.items() if count]):
            return math.fsum(map(float, found)) if len(found) == 1 else math.nan
        total = self._total
        return int(total) if total.denominator == 1 else float(total)


class _Extreme:
    """The smallest or largest of them."""

    __slots__ = ("_merge", "_values")

    def __init__(self, merge: Merge) -> None:
        self._merge = merge
        self._values: dict[str, float] = {}

    def add(self, job_id: str, value: float) -> None:
        """Add a job's value."""
        self._values[job_id] = value

    def remove(self, job_id: str, _value: float) -> None:
        """Take away a job's value."""
        self._values.pop(job_id, None)

    @property
    def value(self) -> float | None:
        """The smallest or largest."""
        return self._merge(self._values.values()) if self._values else None


class _GroupTable:
    """One table of one group. `snapshots`: what its jobs show there, by job id."""

    def __init__(self, metrics: Sequence[Metric[Any]]) -> None:
        self._metrics = metrics
        self._merged: list[dict[Labels, _Merged]] = [{} for _ in metrics]
        self.snapshots: dict[str, Any] = {}

    def put(self, job_id: str, snapshot: Any) -> None:
        """A job shows this from now on; None: nothing."""
        before = self.snapshots.pop(job_id, None)
        if snapshot is not None:
            self.snapshots[job_id] = snapshot
        for metric, series in zip(self._metrics, self._merged, strict=True):
            if metric.merge is None:
                continue
            old, new = _known(metric, before), _known(metric, snapshot)
            if old == new:
                continue
            for labels, value in old:
                series[labels].remove(job_id, value)
            for labels, value in new:
                if labels not in series:
                    series[labels] = _Sum() if metric.merge is sum else _Extreme(metric.merge)
                series[labels].add(job_id, value)
            for labels, _ in old:
                if labels in series and series[labels].value is None:
                    del series[labels]

    def samples(self) -> list[Samples]:
        """The merged samples of each metric."""
        return [
            [(labels, merged.value) for labels, merged in sorted(series.items())]
            for series in self._merged
        ]


def _known(metric: Metric[Any], snapshot: Any) -> list[tuple[Labels, float]]:
    if snapshot is None:
        return []
    return [(labels, value) for labels, value in metric.samples(snapshot) if value is not None]


class Groups:
    """All groups. What changed is rendered by `flush`."""

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition
        self._tables: dict[Place, _GroupTable] = {}
        self._changed: dict[Place, None] = {}

    def put(self, place: Place, job_id: str, snapshot: Any) -> None:
        """A job of a group shows this in a table from now on; None: nothing."""
        table = self._tables.get(place)
        if table is None:
            if snapshot is None:
                return
            table = self._tables[place] = _GroupTable(self._exposition.metrics(place[2]))
        table.put(job_id, snapshot)
        self._changed[place] = None

    def show_again(self, place: Place) -> None:
        """Render a table of a group with the next `flush`, though nothing changed."""
        if place in self._tables:
            self._changed[place] = None

    def flush(self) -> None:
        """Render what has changed since the last call."""
        changed, self._changed = self._changed, {}
        for account, owner, name in changed:
            table = self._tables[account, owner, name]
            identity = identity_of(account, owner)
            if table.snapshots:
                self._exposition.put_samples(name, identity, table.samples())
            else:
                del self._tables[account, owner, name]
                self._exposition.remove(name, identity)

    def forget(self, account: str | None = None) -> None:
        """Forget the groups of an account, or all of them."""
        for place in [place for place in self._tables if account in (None, place[0])]:
            del self._tables[place]
            self._changed.pop(place, None)
