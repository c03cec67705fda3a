"""A listing of nodes as it is read: of each page is kept what the state needs, and what it counts.

A job may have a hundred thousand nodes, and the records of all of them would take several times
the room of what is kept.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain, starmap

from exporter.batch.models import NodeTaskStatus, SpecialTaskExecutionInfo, unix_times
from exporter.collectors.node_runs import Change, Firsts, Runs, Seen
from exporter.collectors.run import SUCCEEDED, Outcome
from exporter.collectors.special_tasks import Kind
from exporter.counters import Increments, total
from exporter.failures import LATEST, Failure, latest


class NodePages:
    """What the pages of a listing bring of one kind of task.

    `known`: the runs before it. `since`: what is older, in Unix seconds, and was not known is a
    correction.

    `failures`: the latest of those that the changes show. `corrections`: their number.
    """

    def __init__(self, kind: Kind, known: Runs, since: float) -> None:
        self.kind = kind
        self.known = known
        self.seen = Seen(known)
        self.failures: list[Failure] = []
        self.corrections = 0
        self._since = since
        self._firsts: list[tuple[str, Firsts]] = []
        self._completed: Counter[tuple[str, Outcome]] = Counter()
        self._retries: Counter[str] = Counter()
        self._durations: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)

    def add(self, page: Sequence[NodeTaskStatus]) -> None:
        """Take in one page."""
        news, firsts = self.seen.add(page, self.kind.info)
        self._firsts += firsts.items()
        for change, info in news:
            self._retries[change.pool_id] += change.retries
            if change.completes:
                self._complete(change, info)
        if self._since > 0:  # not in a first listing
            for starts, ends in firsts.values():
                self.corrections += sum(map(self._is_missed, starts, unix_times(ends)))
            self.corrections += sum(self._is_correction(change) for change, _ in news)
        if len(self.failures) > 2 * LATEST:
            self.failures = latest(self.failures)

    def _complete(self, change: Change, info: SpecialTaskExecutionInfo) -> None:
        """A run completed that was not seen completed before."""
        pool_id, run, end = change.pool_id, change.run, change.end
        self._completed[pool_id, run.outcome] += 1
        if run.start is not None and end is not None:
            self._durations[pool_id,].append(end - run.start)
        if run.result == "failure":
            self.failures.append(self.kind.failure(change, info))

    # What follows is worked out for who asks: of most first listings nothing is counted.

    def increments(self) -> Increments:
        """What the changes count, the job being watched all the while."""
        completed = Counter(self._completed)
        for pool_id, (starts, _) in self._firsts:
            completed[pool_id, SUCCEEDED] += len(starts)
        events = starmap(self.kind.completions, completed.items())
        return total([*self.kind.retried(self._retries), *chain.from_iterable(events)])

    def observations(self) -> Increments:
        """What is observed of the changes, likewise."""
        durations = {pool: list(given) for pool, given in self._durations.items()}
        for pool_id, (starts, ends) in self._firsts:
            pairs = zip(starts, unix_times(ends), strict=True)
            lasted = [end - start for start, end in pairs if end is not None]
            durations.setdefault((pool_id,), []).extend(lasted)
        return self.kind.durations.observed(durations)

    def _is_missed(self, start: float | None, end: float | None) -> bool:
        return (start or 0.0) < self._since and (end or 0.0) < self._since

    def _is_correction(self, change: Change) -> bool:
        """Whether reading by changes should have brought this, and did not."""
        return change.run.state != "running" and self._is_missed(change.run.start, change.end)
