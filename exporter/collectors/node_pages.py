"""A listing of nodes as it is read: of each page is kept what the state needs, and what it counts.

A job may have a hundred thousand nodes, and the records of all of them would take several times
the room of what is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, starmap

from exporter.batch.models import NodeTaskStatus, SpecialTaskExecutionInfo
from exporter.collectors.node_run import SUCCEEDED, Outcome
from exporter.collectors.node_runs import Change, Runs, Seen
from exporter.collectors.special_tasks import Kind
from exporter.exposition.metric import Key
from exporter.state.counters import total
from exporter.state.failures import LATEST, Failure, latest


class NodePages:
    """What the pages of a listing bring of one kind of task.

    `known`: the runs before it. `since`: what is older, in Unix seconds, and was not known is a
    correction.

    `increments` and `observations`: what the changes count, the job being watched all the while.
    `failures`: the latest of them. `corrections`: their number.
    """

    def __init__(self, kind: Kind, known: Runs, since: float) -> None:
        self.kind = kind
        self.known = known
        self.seen = Seen(known)
        self.increments: Mapping[Key, float] = {}
        self.observations: Mapping[Key, float] = {}
        self.failures: list[Failure] = []
        self.corrections = 0
        self._since = since

    def add(self, page: Sequence[NodeTaskStatus]) -> None:
        """Take in one page."""
        completed: Counter[tuple[str, Outcome]] = Counter()
        retries: Counter[str] = Counter()
        durations: dict[tuple[str, ...], list[float]] = {}
        news, firsts = self.seen.add(page, self.kind.info)
        for pool_id, (starts, ends) in firsts.items():
            completed[pool_id, SUCCEEDED] = len(starts)
            pairs = zip(starts, ends, strict=True)
            durations[pool_id,] = [end - start for start, end in pairs if end is not None]
            if self._since > 0:  # not in a first listing
                self.corrections += sum(map(self._is_missed, starts, ends))
        for change, info in news:
            retries[change.pool_id] += change.retries
            if change.completes:
                self._complete(change, info, completed, durations)
            if self._since > 0:
                self.corrections += self._is_correction(change)
        # There are few ways to end, so what each counts is worked out once.
        events = [
            *self.kind.retried(retries),
            *chain.from_iterable(starmap(self.kind.completions, completed.items())),
        ]
        observed = self.kind.durations.observed(durations)
        self.increments = total([*self.increments.items(), *events])
        self.observations = total([*self.observations.items(), *observed.items()])
        if len(self.failures) > 2 * LATEST:
            self.failures = latest(self.failures)

    def _complete(
        self,
        change: Change,
        info: SpecialTaskExecutionInfo,
        completed: Counter[tuple[str, Outcome]],
        durations: dict[tuple[str, ...], list[float]],
    ) -> None:
        """A run completed that was not seen completed before."""
        pool_id, run, end = change.pool_id, change.run, change.end
        completed[pool_id, run.outcome] += 1
        if run.start is not None and end is not None:
            durations.setdefault((pool_id,), []).append(end - run.start)
        if run.result == "failure":
            self.failures.append(self.kind.failure(change, info))

    def _is_missed(self, start: float | None, end: float | None) -> bool:
        return (start or 0.0) < self._since and (end or 0.0) < self._since

    def _is_correction(self, change: Change) -> bool:
        """Whether reading by changes should have brought this, and did not."""
        return change.run.state != "running" and self._is_missed(change.run.start, change.end)
