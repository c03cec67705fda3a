"""The gauges of groups, merged from the gauges of their jobs.

A group may have thousands of jobs, so its sums follow changes: when a job changes, its old values
are subtracted and its new values added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporter.exposition.body import Exposition
from exporter.exposition.metric import Labels, Merge, Metric, Samples
from exporter.state.account import Owner, identity_of

Place = tuple[str, Owner, str]
"""(account, group, table)."""


class _Sum:
    """The sum of one series of a group. `jobs`: how many have a value."""

    __slots__ = ("jobs", "value")

    def __init__(self) -> None:
        self.jobs = 0
        self.value: float = 0

    def change(self, _job_id: str, value: float, sign: int) -> None:
        """Add a job's value (sign 1), or take it away again (-1)."""
        self.jobs += sign
        self.value += sign * value


class _ByJob:
    """The values of one series of a group by job, for merges other than `sum`."""

    __slots__ = ("_merge", "_values")

    def __init__(self, merge: Merge) -> None:
        self._merge = merge
        self._values: dict[str, float] = {}

    def change(self, job_id: str, value: float, sign: int) -> None:
        """Add a job's value (sign 1), or take it away again (-1)."""
        if sign > 0:
            self._values[job_id] = value
        else:
            self._values.pop(job_id, None)

    @property
    def jobs(self) -> int:
        """How many jobs have a value."""
        return len(self._values)

    @property
    def value(self) -> float:
        """The merged value."""
        return self._merge(self._values.values())


class _GroupTable:
    """One table of one group. `snapshots`: what its jobs show there, by job id."""

    def __init__(self, metrics: Sequence[Metric[Any]]) -> None:
        self._metrics = metrics
        self._merged: list[dict[Labels, _Sum | _ByJob]] = [{} for _ in metrics]
        self.snapshots: dict[str, Any] = {}

    def put(self, job_id: str, snapshot: Any) -> None:
        """A job shows this from now on; None: nothing."""
        before = self.snapshots.pop(job_id, None)
        if snapshot is not None:
            self.snapshots[job_id] = snapshot
        for metric, merged in zip(self._metrics, self._merged, strict=True):
            if metric.merge is None:
                continue
            old, new = _known(metric, before), _known(metric, snapshot)
            if old == new:
                continue
            for sign, samples in ((-1, old), (1, new)):
                for labels, value in samples:
                    if labels not in merged:
                        is_sum = metric.merge is sum
                        merged[labels] = _Sum() if is_sum else _ByJob(metric.merge)
                    merged[labels].change(job_id, value, sign)
            for labels, _ in old:
                if not merged[labels].jobs:
                    del merged[labels]

    def samples(self) -> list[Samples]:
        """The merged samples of each metric."""
        return [
            [(labels, each.value) for labels, each in sorted(merged.items())]
            for merged in self._merged
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
                self._exposition.put(name, identity, None, samples=table.samples())
            else:
                del self._tables[account, owner, name]
                self._exposition.remove(name, identity)

    def forget(self, account: str | None = None) -> None:
        """Forget the groups of an account, or all of them."""
        for place in [place for place in self._tables if account in (None, place[0])]:
            del self._tables[place]
            self._changed.pop(place, None)
