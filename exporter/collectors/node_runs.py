"""The latest run of a job preparation or job release task on each node, and how listings change it.

A run is identified by its pool, node and start time. The service shows only the latest run of a
node.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

import msgspec

from exporter.batch.failure_codes import category
from exporter.batch.models import (
    SpecialTaskExecutionInfo,
    enum_value,
    may_be_same,
    result_of,
    unix_time,
)
from exporter.batch.spellings import Spellings
from exporter.collectors.known_records import KnownRecords
from exporter.state.failures import Failure

STATES = ("running", "completed")

LABELS = ("state", "result", "category", "code")
"""The fields of a run that are label values."""

RunLabels = tuple[str | None, str | None, str | None, str | None]
"""Their values in one run."""

_labels_of: Callable[[NodeRun], RunLabels] = attrgetter(*LABELS)


class NodeRun(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The latest run on one node. `start`: Unix time."""

    start: float | None
    state: str | None
    result: str | None
    category: str | None
    code: str | None
    retries: int

    @classmethod
    def of(cls, info: SpecialTaskExecutionInfo, spellings: Spellings) -> NodeRun:
        """The run that the service shows. Its result counts only once it is completed."""
        state = enum_value(info.state, STATES)
        result = result_of(info) if state == "completed" else None
        start, retries = unix_time(info.start_time), info.retry_count or 0
        if result != "failure":
            return cls(start, state, result, None, None, retries)
        failure = info.failure_info
        code = spellings.code(failure.code if failure else None)
        return cls(start, state, result, category(failure), code, retries)

    def is_older_than(self, known: NodeRun) -> bool:
        """Whether this is an earlier version of the node's record than the known one."""
        if self.start is None and known.start is not None:
            return self._progress <= known._progress
        if may_be_same(self.start, known.start):
            return self._progress < known._progress
        return self.start is not None and known.start is not None and self.start < known.start

    @property
    def _progress(self) -> tuple[bool, bool, int]:
        return (self.state == "completed", self.result is not None, self.retries)

    def completes(self, before: NodeRun | None) -> bool:
        """Whether this run has a result, and the version before did not have it."""
        had_result = (
            before is not None
            and before.result is not None
            and may_be_same(before.start, self.start)
        )
        return self.result is not None and not had_result

    def retries_since(self, before: NodeRun | None) -> int:
        """The retries since the version before.

        A retry raises the count and moves the start. A new run begins at 0. This is a new run if
        the one before was completed, or if the start moved and the count did not rise.
        """
        if before is None:
            return self.retries
        is_retried = before.state != "completed" and self.retries > before.retries
        if is_retried or may_be_same(self.start, before.start):
            return max(0, self.retries - before.retries)
        return self.retries


@dataclass(frozen=True, slots=True)
class ListedRuns:
    """The runs of one task that a listing shows in one pool, in the order of the answer.

    `node_ids`, `runs` and `ends` have one entry per run: an object per run would take a third more
    memory. `ends`: Unix times, 0.0 if unknown. `failures`: by node and start of the run.
    """

    node_ids: list[str] = field(default_factory=list)
    runs: list[NodeRun] = field(default_factory=list)
    ends: array[float] = field(default_factory=lambda: array("d"))
    failures: dict[tuple[str, float | None], Failure] = field(default_factory=dict)


@dataclass(slots=True)
class PoolEvents:
    """What happened to the runs of one task in one pool between two readings.

    `completed`: number of runs. `durations`: seconds, of completed runs.
    `corrections`: changes that an earlier listing of changes should have shown.
    """

    completed: Counter[RunLabels] = field(default_factory=Counter)
    durations: array[float] = field(default_factory=lambda: array("d"))
    failures: list[Failure] = field(default_factory=list)
    retries: int = 0
    corrections: int = 0


class PoolRuns(KnownRecords[NodeRun, NodeRun], frozen=True, gc=False):
    """The runs of one task on the nodes of one pool, by node.

    `outcomes`: number of nodes. `oldest_running`: the earliest start of a run that is running.
    """

    outcomes: Mapping[RunLabels, int] = {}
    oldest_running: float | None = None

    @classmethod
    def of(cls, latest: Mapping[str, NodeRun], missing: Mapping[str, NodeRun]) -> PoolRuns:
        """The runs with their totals. One pass over all of them is simplest to get right."""
        runs = latest.values()
        outcomes = dict(Counter(map(_labels_of, runs)))
        starts = (run.start for run in runs if run.state == "running" and run.start is not None)
        return cls(latest, missing, outcomes, min(starts, default=None))

    def merged(
        self, listed: ListedRuns, *, full: bool, missed_before: float
    ) -> tuple[PoolRuns, PoolEvents]:
        """The runs after a listing, and what happened.

        `full`: the listing asked for all nodes. `missed_before`: a change that ended before this
        Unix time is a correction.
        """
        found: dict[str, NodeRun] = {}
        events = PoolEvents()
        is_changed = False
        for number, before in self.changes(listed.node_ids, listed.runs, found):
            node_id, run, end = listed.node_ids[number], listed.runs[number], listed.ends[number]
            is_changed = True
            events.retries += run.retries_since(before)
            if run.state != "running" and max(run.start or 0.0, end) < missed_before:
                events.corrections += 1
            if run.completes(before):
                events.completed[_labels_of(run)] += 1
                if end and run.start is not None:
                    events.durations.append(end - run.start)
                if run.result == "failure":
                    events.failures.append(listed.failures[node_id, run.start])
        known = self.latest.keys()
        if not is_changed and (found.keys() == known if full else found.keys() <= known):
            return self, events
        return PoolRuns.of(*self.after(found, None if full else ())), events
