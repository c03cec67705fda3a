"""The latest run of a job preparation or job release task on each node, and how listings change it.

A run is identified by its pool, node and start time. The service shows only the latest run of a
node. Pages are no snapshot: a listing may lack a node, or show it twice, once in an older version.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from exporter.batch.failure_codes import category, code
from exporter.batch.models import SpecialTaskExecutionInfo, enum_value, unix_time
from exporter.state.failures import Failure
from exporter.state.record import StateRecord

STATES = ("running", "completed")
RESULTS = ("success", "failure")

_EMPTY: Mapping[Any, Any] = MappingProxyType({})
"""Shared: an empty dict for each of thousands of jobs would add up."""


class NodeRun(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The latest run on one node. `start`: Unix time."""

    start: float | None
    state: str | None
    result: str | None
    category: str | None
    code: str | None
    retries: int

    @classmethod
    def of(cls, info: SpecialTaskExecutionInfo) -> NodeRun:
        """The run that the service shows. Its result counts only once it is completed."""
        state = enum_value(info.state, STATES)
        result = enum_value(info.result, RESULTS) if state == "completed" else None
        start, retries = unix_time(info.start_time), info.retry_count or 0
        if result != "failure":
            return cls(start, state, result, None, None, retries)
        failure = info.failure_info
        return cls(start, state, result, category(failure), code(failure), retries)

    def is_older_than(self, known: NodeRun) -> bool:
        """Whether the service showed this version of the node before the known one."""
        if self.start == known.start:
            return self._progress < known._progress
        return self.start is not None and known.start is not None and self.start < known.start

    @property
    def _progress(self) -> tuple[bool, bool, int]:
        return (self.state == "completed", self.result is not None, self.retries)

    def completes(self, before: NodeRun | None) -> bool:
        """Whether this run has a result that the version before did not have."""
        is_known = before is not None and before.start == self.start and before.result is not None
        return self.result is not None and not is_known

    def retries_since(self, before: NodeRun | None) -> int:
        """The retries since the version before.

        A retry raises the count and moves the start. The run is another one, and its count began
        at 0, if the run before was completed, or if the start moved and the count did not rise.
        """
        if before is None:
            return self.retries
        is_retried = before.state != "completed" and self.retries > before.retries
        if is_retried or self.start == before.start:
            return max(0, self.retries - before.retries)
        return self.retries


@dataclass(frozen=True, slots=True)
class ListedRuns:
    """The runs of one task that a listing shows in one pool, in the order of the answer.

    The first three have one entry per run: an object per run would take a third more memory.
    `ends`: Unix times, 0.0 if unknown. `failures`: by node and start of the run.
    """

    node_ids: list[str] = field(default_factory=list)
    runs: list[NodeRun] = field(default_factory=list)
    ends: array[float] = field(default_factory=lambda: array("d"))
    failures: dict[tuple[str, float | None], Failure] = field(default_factory=dict)


class Change(msgspec.Struct, frozen=True, gc=False):
    """A node's run in a newer version than was known. `end`: Unix time, 0.0 if unknown.

    `completes`, `retries`: whether it completed, and its retries, since the version before.
    `failure`: if it completed and failed.
    """

    run: NodeRun
    end: float
    completes: bool
    retries: int
    failure: Failure | None


class Outcome(NamedTuple):
    """The label values of a run."""

    state: str | None
    result: str | None
    category: str | None
    code: str | None


_outcome_of = attrgetter(*Outcome._fields)


class PoolRuns(StateRecord, frozen=True, gc=False):
    """The runs of one task on the nodes of one pool.

    `latest`: by node. `missing`: by node, the last known run of nodes that full listings lack. A
    node that comes back is not counted again.
    `outcomes`: number of nodes. `oldest_running`: the earliest start of a run that is running.
    """

    latest: Mapping[str, NodeRun] = _EMPTY
    missing: Mapping[str, NodeRun] = _EMPTY
    outcomes: Mapping[Outcome, int] = _EMPTY
    oldest_running: float | None = None

    @classmethod
    def of(cls, latest: Mapping[str, NodeRun], missing: Mapping[str, NodeRun]) -> PoolRuns:
        """The runs with their totals. One pass over all of them is simplest to get right."""
        runs = latest.values()
        numbers = Counter(map(_outcome_of, runs))
        outcomes = {Outcome(*values): number for values, number in numbers.items()}
        starts = (run.start for run in runs if run.state == "running" and run.start is not None)
        return cls(latest, missing or _EMPTY, outcomes, min(starts, default=None))

    def merged(self, listed: ListedRuns, *, full: bool) -> tuple[PoolRuns, list[Change]]:
        """The runs after a listing, and what changed. `full`: the listing asked for all nodes."""
        found: dict[str, NodeRun] = {}
        changes: list[Change] = []
        for node_id, run, end in zip(listed.node_ids, listed.runs, listed.ends, strict=True):
            before = found.get(node_id) or self.latest.get(node_id) or self.missing.get(node_id)
            if before is not None and (run == before or run.is_older_than(before)):
                found[node_id] = before
                continue
            found[node_id] = run
            completes, retries = run.completes(before), run.retries_since(before)
            failure = listed.failures.get((node_id, run.start)) if completes else None
            changes.append(Change(run, end, completes, retries, failure))
        known = self.latest.keys()
        if not changes and (found.keys() == known if full else found.keys() <= known):
            return self, []
        latest = found
        if not full:
            latest = dict(self.latest)  # {**a, **b} takes more memory
            latest.update(found)
        ever = {**self.missing, **self.latest} if full else self.missing
        missing = {node_id: run for node_id, run in ever.items() if node_id not in found}
        return PoolRuns.of(latest, missing), changes


class Runs(StateRecord, frozen=True, gc=False):
    """All runs of one task, by pool."""

    pools: Mapping[str, PoolRuns] = _EMPTY

    def count(self, label: str, value: str) -> int:
        """The number of nodes whose latest run has this value of a label, e.g. of `state`."""
        return sum(
            number
            for pool in self.pools.values()
            for outcome, number in pool.outcomes.items()
            if getattr(outcome, label) == value
        )

    def merged(
        self, listed: Mapping[str, ListedRuns], *, full: bool
    ) -> tuple[Runs, Mapping[str, list[Change]]]:
        """The runs after a listing, and what changed, both by pool."""
        pools = dict(self.pools)
        changes: dict[str, list[Change]] = {}
        for pool_id in {*pools, *listed} if full else listed:
            before, of_pool = pools.get(pool_id, PoolRuns()), listed.get(pool_id, ListedRuns())
            pools[pool_id], changes[pool_id] = before.merged(of_pool, full=full)
        return Runs(pools), changes
