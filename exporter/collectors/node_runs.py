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
    """

    latest: Mapping[Node, Run] = field(default_factory=dict)
    tally: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    running: Mapping[Node, float | None] = field(default_factory=dict)

    def merged(
        self, seen: Iterable[tuple[Node, Run]], *, full: bool
    ) -> tuple[Runs, list[Change], list[Node]]:
        """These runs after a reading, what changed, and the nodes that are gone.

        `full`: the reading holds every node, so one that it does not hold is gone. A record that
        is older than what is known of its node (pages are no snapshot) changes nothing.
        """
        latest = {} if full else dict(self.latest)
        tally = dict(self.tally)
        running = dict(self.running)
        changes = []
        for node, run in seen:
            before = latest.get(node) or self.latest.get(node)
            if before is None or (run != before and not _is_older(run, before)):
                latest[node] = run
                changes.append(Change(node, before, run))
            elif full:
                latest[node] = before
        gone = [node for node in self.latest if node not in latest] if full else []
        for node in gone:
            _count(tally, node, self.latest[node], -1)
            running.pop(node, None)
        for node, before, run in changes:
            if before is not None:
                _count(tally, node, before, -1)
            _count(tally, node, run, +1)
            if run.state == "running":
                running[node] = run.start
            else:
                running.pop(node, None)
        tally = {key: number for key, number in tally.items() if number}
        return Runs(latest, tally, running), changes, gone


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
    def retries(self) -> int:
        """By how much retryCount grew; a run that began anew counts from 0."""
        before = self.before.retries if self.before is not None else 0
        return self.run.retries - before if self.run.retries >= before else self.run.retries


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
