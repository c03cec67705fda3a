"""Runs of job preparation and release tasks on nodes: the latest of each, counted once each.

The service shows of each node only its latest run. A run is known by its node and start; it is
counted when it is first seen completed, however often and in whatever order its record is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from exporter.batch.failure_codes import category, code
from exporter.batch.models import SpecialTaskExecutionInfo, enum_value, unix_time

STATES = ("running", "completed")
RESULTS = ("success", "failure")


class Node(msgspec.Struct, frozen=True, gc=False):
    """Which node. Unlike a tuple nothing that the garbage collector looks through.

    A dictionary of these and of runs is none, either: a poll by changes makes one of a hundred
    thousand, and looking through that costs more than what the poll is for.
    """

    pool_id: str
    id: str


class Run(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One run on a node, as last seen. Times are Unix seconds.

    A job may have a hundred thousand: small, and nothing that the garbage collector looks through.
    """

    start: float | None
    end: float | None
    state: str | None
    result: str | None
    category: str | None
    code: str | None
    retries: int

    @property
    def is_completed(self) -> bool:
        """Whether it is over."""
        return self.state == "completed"


def run_of(info: SpecialTaskExecutionInfo) -> Run:
    """What is kept of a run that the service shows."""
    state = enum_value(info.state, STATES)
    result = enum_value(info.result, RESULTS) if state == "completed" else None
    failed = result == "failure"
    return Run(
        unix_time(info.start_time),
        unix_time(info.end_time),
        state,
        result,
        category(info.failure_info) if failed else None,
        code(info.failure_info) if failed else None,
        info.retry_count or 0,
    )


@dataclass(frozen=True)
class Runs:
    """All nodes' latest runs of one kind of task.

    `tally`: number of nodes by (pool id, what, values…), what being `state`, `result` or `failure`.
    `running`: start of what runs now, by node.
    `missing`: nodes that the last full listing did not hold. Pages are no snapshot: one that comes
    back has not run again.
    """

    latest: Mapping[Node, Run] = field(default_factory=dict)
    tally: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    running: Mapping[Node, float | None] = field(default_factory=dict)
    missing: Mapping[Node, Run] = field(default_factory=dict)

    def merged(self, seen: Iterable[tuple[Node, Run]], *, full: bool) -> tuple[Runs, list[Change]]:
        """These runs after a reading, and what changed.

        `full`: the reading holds every node, so one that it does not hold is gone. A record that
        is older than what is known of its node (pages are no snapshot) changes nothing.
        """
        latest = {} if full else dict(self.latest)
        changes = []
        touched = {}
        for node, run in seen:
            known = latest.get(node) or self.latest.get(node)
            before = known or self.missing.get(node)
            if before is not None and (run == before or _is_older(run, before)):
                run = before
            else:
                changes.append(Change(node, before, run))
            if run is not known:
                touched[node] = run
            if full or run is not known:
                latest[node] = run
        gone = [node for node in self.latest if node not in latest] if full else []
        tally = dict(self.tally)
        running = dict(self.running)
        for node in (*gone, *touched):
            if node in self.latest:
                _count(tally, node, self.latest[node], -1)
            running.pop(node, None)
        for node, run in touched.items():
            _count(tally, node, run, +1)
            if run.state == "running":
                running[node] = run.start
        tally = {key: number for key, number in tally.items() if number}
        if full:
            missing = {node: self.latest[node] for node in gone}
        else:
            missing = {node: run for node, run in self.missing.items() if node not in touched}
        return Runs(latest, tally, running, missing), changes


class Change(NamedTuple):
    """A node's run, as it was known and as it is."""

    node: Node
    before: Run | None
    run: Run

    @property
    def completes(self) -> bool:
        """Whether this is the completion of a run that was not seen completed before."""
        return self.run.is_completed and not (
            self.before is not None
            and self.before.is_completed
            and self.before.start == self.run.start
        )

    @property
    def fails(self) -> bool:
        """Whether this is the completion of a run that failed."""
        return self.run.result == "failure" and self.completes

    @property
    def retries(self) -> int:
        """How often it was retried that was not seen before.

        A retry moves the start and is counted. So what follows a completed run, or has another
        start and no higher count, is another run: its count began at 0.
        """
        before, run = self.before, self.run
        if before is None:
            return run.retries
        goes_on = not before.is_completed and run.retries > before.retries
        if goes_on or run.start == before.start:
            return max(0, run.retries - before.retries)
        return run.retries


def _is_older(run: Run, known: Run) -> bool:
    if run.start is None or known.start is None:
        return False
    if run.start != known.start:
        return run.start < known.start
    return known.is_completed and not run.is_completed


def _count(tally: dict[tuple[str, ...], int], node: Node, run: Run, by: int) -> None:
    for key in _keys(node.pool_id, run):
        tally[key] = tally.get(key, 0) + by


def _keys(pool_id: str, run: Run) -> Iterator[tuple[str, ...]]:
    if run.state is not None:
        yield (pool_id, "state", run.state)
    if run.result is not None:
        yield (pool_id, "result", run.result)
    if run.category is not None and run.code is not None:
        yield (pool_id, "failure", run.category, run.code)
