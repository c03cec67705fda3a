"""Runs of job preparation and release tasks on nodes: the latest of each, counted once each.

The service shows of each node only its latest run. A run is known by its node and start; it is
counted when it is first seen completed, however often and in whatever order its record is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from exporter.batch.models import NodeTaskStatus, SpecialTaskExecutionInfo, unix_time, unix_times
from exporter.collectors.node_run import SUCCEEDED, Kept, Outcome, Run, keep_given, run_of
from exporter.exposition.metric import Key
from exporter.state.record import StateRecord

ByNode = Mapping[str, Mapping[str, Kept]]
"""Runs by pool and node."""

Tallied = Key
"""What is counted of nodes: `state`, `result` or `failure`; and the pool's id and the values."""

Running = tuple[tuple[str, str, float | None], ...]
"""Pool, node and start of each run that is not over, in no order."""

InfoOf = Callable[[NodeTaskStatus], SpecialTaskExecutionInfo | None]
"""One of the two tasks of a record."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """A node's run, as it was known and as it is. `end`: Unix time at which it ended."""

    pool_id: str
    node_id: str
    before: Run | None
    run: Run
    end: float | None

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


News = tuple[Change, SpecialTaskExecutionInfo]
"""A change, and what the service says of the run."""


class Firsts(NamedTuple):
    """Runs that succeeded without a retry on nodes that were not known: their Unix times.

    Of a first listing nearly all did, and to make a change of each would take most of its time.
    """

    starts: list[float]
    ends: list[float | None]


_NONE: Mapping[Any, Any] = MappingProxyType({})
"""Most jobs have nothing in one place or another, and an empty dictionary each would add up."""


class Runs(StateRecord, frozen=True, gc=False):
    """All nodes' latest runs of one kind of task.

    `tally`: number of nodes.
    `missing`: nodes that the last full listing did not hold. Pages are no snapshot: one that comes
    back has not run again.
    """

    latest: ByNode = msgspec.field(default_factory=lambda: _NONE)
    tally: Mapping[Tallied, int] = msgspec.field(default_factory=lambda: _NONE)
    running: Running = ()
    missing: ByNode = msgspec.field(default_factory=lambda: _NONE)

    @classmethod
    def of(cls, latest: ByNode, missing: ByNode) -> Runs:
        """Runs with all that follows from them."""
        totals = _Totals()
        for pool_id, nodes in latest.items():
            for node_id, run in nodes.items():
                totals.move(pool_id, node_id, None, run_of(run))
        return totals.runs(latest, missing)

    def count(self, what: str, value: str) -> int:
        """Nodes of all pools together, by `state` or `result`."""
        return sum(
            [n for (of, labels), n in self.tally.items() if of == what and labels[1] == value]
        )

    def merged(self, seen: Seen, *, full: bool) -> Runs:
        """These runs after a reading. `full`: it holds every node; those that it lacks are gone."""
        totals = _Totals(seen.totals.tally, seen.totals.running)
        gone: list[tuple[str, str, Kept]] = []
        for pool_id, nodes in self.latest.items() if full else ():
            here = seen.runs.get(pool_id, {})
            for node_id in nodes.keys() - here.keys():
                gone.append((pool_id, node_id, nodes[node_id]))
                totals.move(pool_id, node_id, run_of(nodes[node_id]), None)
        if not (gone or seen.touched or (full and self.missing)):
            return self
        latest = seen.runs if full else self._updated(seen)
        missing = gone if full else self._still_missing(seen)
        return totals.runs(latest, _nested(missing) or _NONE)

    def _updated(self, seen: Seen) -> ByNode:
        """What is known, with what is new; pools of which nothing has changed are not copied."""
        after = dict(self.latest)
        for pool_id in seen.touched:
            nodes = dict(after.get(pool_id, {}))  # a copy made at once is several times faster
            nodes.update(seen.runs[pool_id])
            after[pool_id] = nodes
        return after

    def _still_missing(self, seen: Seen) -> Iterator[tuple[str, str, Kept]]:
        for pool_id, nodes in self.missing.items():
            for node_id, run in nodes.items():
                if (pool_id, node_id) not in seen.returned:
                    yield pool_id, node_id, run

    def changed_by(self, seen: Seen, after: Runs) -> Iterator[tuple[str, str, Run]]:
        """The nodes of a reading of which another run is known after it, or that were missing."""
        for pool_id in seen.touched:
            known, latest = self.latest.get(pool_id, {}), after.latest[pool_id]
            for node_id in seen.runs[pool_id]:
                run = latest[node_id]
                if known.get(node_id) != run:
                    yield pool_id, node_id, run_of(run)


class Seen:
    """The runs of one kind that a reading brings, page by page, merged with what is `known`.

    `touched`: pools in which something has changed. `returned`: nodes that were missing and are
    here again.
    """

    def __init__(self, known: Runs) -> None:
        self.runs: dict[str, dict[str, Kept]] = {}
        self.totals = _Totals.of(known)
        self.touched: set[str] = set()
        self.returned: set[tuple[str, str]] = set()
        self._latest = known.latest
        self._missed = known.missing

    def add(
        self, page: Sequence[NodeTaskStatus], info_of: InfoOf
    ) -> tuple[list[News], Mapping[str, Firsts]]:
        """Take in the records of a page; gives what has changed, each with what the service says.

        A record that is older than what is known of its node (pages are no snapshot) changes
        nothing. The firsts are by pool.
        """
        news: list[News] = []
        firsts: dict[str, Firsts] = {}
        for pool_id, node_ids, infos in _by_pool(page, info_of):
            size = len(node_ids)
            # One at a time where a node is there twice.
            step = size if len(set(node_ids)) == size else 1
            for start in range(0, size, step):
                end = start + step
                self._add(pool_id, node_ids[start:end], infos[start:end], news, firsts)
        return news, firsts

    def _add(
        self,
        pool_id: str,
        node_ids: list[str],
        infos: list[SpecialTaskExecutionInfo],
        news: list[News],
        firsts: dict[str, Firsts],
    ) -> None:
        """Take in what the service says of nodes of one pool.

        There may be a hundred thousand, nearly all of which are as they were. So each step is done
        for all of them, which takes half of what all steps for each of them would.
        """
        runs, known = self.runs.setdefault(pool_id, {}), self._latest.get(pool_id, _NONE)
        starts = unix_times([info.start_time for info in infos])
        kept = keep_given(infos, starts)
        before: list[Kept | None] = list(map(known.get, node_ids))
        if not runs.keys().isdisjoint(node_ids):
            before = list(map(runs.get, node_ids, before))
        changed: list[int] = []
        if before != kept:
            pairs = zip(before, kept, strict=True)
            changed = [index for index, (was, run) in enumerate(pairs) if was != run]
        runs.update(zip(node_ids, kept, strict=True))
        succeeded: list[int] = []
        others: list[int] = []
        may_be_first = not self._missed
        for index in changed:
            is_first = may_be_first and before[index] is None
            (succeeded if is_first and type(kept[index]) is float else others).append(index)
        if succeeded:
            self.touched.add(pool_id)
            self.totals.add_succeeded(pool_id, len(succeeded))
            of_pool = firsts.setdefault(pool_id, Firsts([], []))
            of_pool.starts.extend([kept[index] for index in succeeded])  # type: ignore[misc]
            of_pool.ends.extend(unix_times([infos[index].end_time for index in succeeded]))
        for index in others:
            info = infos[index]
            change = self._change(pool_id, node_ids[index], before[index], kept[index], info)
            if change is not None:
                news.append((change, info))

    def _change(
        self,
        pool_id: str,
        node_id: str,
        before: Kept | None,
        run: Kept,
        info: SpecialTaskExecutionInfo,
    ) -> Change | None:
        if before is None and self._missed:
            before = self._missing(pool_id, node_id)
        known, after = None if before is None else run_of(before), run_of(run)
        if before is not None and known is not None and (run == before or _is_older(after, known)):
            self.runs[pool_id][node_id] = before
            return None
        self.runs[pool_id][node_id] = run
        self.touched.add(pool_id)
        self.totals.move(pool_id, node_id, known, after)
        return Change(pool_id, node_id, known, after, unix_time(info.end_time))

    def _missing(self, pool_id: str, node_id: str) -> Kept | None:
        run = self._missed.get(pool_id, {}).get(node_id)
        if run is not None:
            self.touched.add(pool_id)
            self.returned.add((pool_id, node_id))
            self.totals.move(pool_id, node_id, None, run_of(run))
        return run


def _by_pool(
    page: Sequence[NodeTaskStatus], info_of: InfoOf
) -> Iterator[tuple[str, list[str], list[SpecialTaskExecutionInfo]]]:
    """The nodes of each pool, and what the service says of the task there."""
    infos = list(map(info_of, page))
    if not any(infos):
        return  # of the release tasks there is none while a job runs
    pool_ids = [record.pool_id or "" for record in page]
    node_ids = [record.node_id or "" for record in page]
    for pool_id in dict.fromkeys(pool_ids):
        here, of_nodes = node_ids, infos
        if pool_ids.count(pool_id) < len(page):
            is_here = [pool_id == other for other in pool_ids]
            here, of_nodes = list(compress(node_ids, is_here)), list(compress(infos, is_here))
        if any(of_nodes):
            yield pool_id, list(compress(here, of_nodes)), list(filter(None, of_nodes))


class _Totals:
    """What is kept of all nodes together, while some change."""

    def __init__(
        self,
        tally: Mapping[Tallied, int] = _NONE,
        running: Mapping[tuple[str, str], float | None] = _NONE,
    ) -> None:
        self.tally = dict(tally)
        self.running = dict(running)

    @classmethod
    def of(cls, runs: Runs) -> _Totals:
        """Those of all nodes as they are."""
        running = {(pool_id, node_id): start for pool_id, node_id, start in runs.running}
        return cls(runs.tally, running)

    def runs(self, latest: ByNode, missing: ByNode) -> Runs:
        """All nodes, these being what they come to."""
        running = tuple([(*node, start) for node, start in self.running.items()])
        return Runs(latest, self.tally, running, missing)

    def move(self, pool_id: str, node_id: str, before: Run | None, run: Run | None) -> None:
        """A node has another run than before; None: it is not here."""
        if before is not None:
            self._count(pool_id, before.outcome, -1)
            if before.state == "running":
                self.running.pop((pool_id, node_id), None)
        if run is not None:
            self._count(pool_id, run.outcome, +1)
            if run.state == "running":
                self.running[pool_id, node_id] = run.start

    def add_succeeded(self, pool_id: str, nodes: int) -> None:
        """So many nodes that were not here have succeeded."""
        self._count(pool_id, SUCCEEDED, nodes)

    def _count(self, pool_id: str, outcome: Outcome, by: int) -> None:
        tally = self.tally
        for key in _tallied(pool_id, *outcome):
            tally[key] = tally.get(key, 0) + by
            if not tally[key]:
                del tally[key]


@lru_cache(maxsize=1000)  # of all jobs on a pool they are the same
def _tallied(
    pool_id: str, state: str | None, result: str | None, category: str | None, code: str | None
) -> tuple[Tallied, ...]:
    """What a run counts for in the tally."""
    found: list[Tallied] = []
    if state is not None:
        found.append(("state", (pool_id, state)))
    if result is not None:
        found.append(("result", (pool_id, result)))
    if category is not None and code is not None:
        found.append(("failure", (pool_id, category, code)))
    return tuple(found)


def _is_older(run: Run, known: Run) -> bool:
    if run.start is None or known.start is None:
        return False
    if run.start != known.start:
        return run.start < known.start
    return known.is_completed and not run.is_completed


def _nested(runs: Iterable[tuple[str, str, Kept]]) -> ByNode:
    nested: dict[str, dict[str, Kept]] = {}
    for pool_id, node_id, run in runs:
        nested.setdefault(pool_id, {})[node_id] = run
    return nested
