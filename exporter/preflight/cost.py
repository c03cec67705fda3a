"""What jobs will cost: series and requests, from polls of a few of them."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from exporter import collectors
from exporter.collectors.jobs import SelectedJobs
from exporter.collectors.pool_nodes import PoolNodes
from exporter.exposition import Exposition, Format
from exporter.failures import Failures
from exporter.preflight.forecast import Range
from exporter.selection import Rule, WatchedJob
from exporter.state_file import Saved
from exporter.store import Store
from exporter.totals import Totals

_OF_JOBS = re.compile(rb'^[^#{]+\{[^}]*\bjob_(?:id|group)="', re.MULTILINE)


@dataclass(frozen=True)
class Poll:
    """One poll of a collector of a job. `pages`: requests that it took."""

    watched: WatchedJob
    collector: str
    reading: Any
    pages: int


@dataclass(frozen=True)
class Shown:
    """How metrics are shown: labels that are added, names that are left out."""

    info_labels: tuple[str, ...]
    excluded: Container[str]


def owners(watched: Sequence[WatchedJob]) -> int:
    """How many jobs and groups have series."""
    return len({("group", each.group) if each.group else ("job", each.job.id) for each in watched})


class Sample:
    """Polls of some jobs of one rule, as the exporter would take them in."""

    def __init__(self, account: str, polls: Sequence[Poll], shown: Shown, now: float) -> None:
        tables = collectors.tables(shown.info_labels, shown.excluded)
        self._polls = polls
        self._jobs = {poll.watched.job.id: poll.watched for poll in polls}
        self._exposition = Exposition(tables)
        self._store = Store(self._exposition, Totals(self._exposition), Failures())
        self._store.add_account(account, Saved(), ())
        self._store.select(account, SelectedJobs(tuple(self._jobs.values())), now)
        for poll in polls:
            self._store.put_reading(account, poll.watched.job, poll.collector, poll.reading, now)
        self._account, self._now = account, now
        self._store.flush()

    @property
    def jobs(self) -> int:
        """How many jobs were polled."""
        return len(self._jobs)

    def series_of_jobs(self, watched: Sequence[WatchedJob]) -> int:
        """Series of so many jobs, where they are like those that were polled."""
        if not self._jobs:
            return 0
        text = self._exposition.body(Format.TEXT).plain
        each = len(_OF_JOBS.findall(text)) / owners(tuple(self._jobs.values()))
        return round(each * owners(watched))

    def series_of_account(self, pool_nodes: PoolNodes | None) -> int:
        """Series that no job has."""
        if pool_nodes is not None:
            self._store.put_pool_nodes(self._account, pool_nodes, self._now)
        body = self._exposition.body(Format.TEXT)
        return body.series - len(_OF_JOBS.findall(body.plain))

    def requests_per_minute(self, jobs: int) -> Range:
        """Requests that so many jobs take, where they are like those that were polled."""
        if not self._jobs:
            return Range()
        each = sum(self._requests_of_poll(poll) for poll in self._polls) / self.jobs * jobs
        rule = self._polls[0].watched.rule
        return Range(each / max(1, rule.idle_interval // rule.interval), each)

    def _requests_of_poll(self, poll: Poll) -> float:
        """Requests per minute of one collector of one job."""
        kind = collectors.JOB_COLLECTORS[poll.collector]
        outcome = self._store.outcome(self._account, poll.collector, poll.watched.job.id)
        if outcome.state is not None and kind.is_settled(outcome.state):
            return 0.0
        rule = poll.watched.rule
        pages: float = poll.pages
        if kind.lists and rule.resync_interval > rule.interval:
            # Between two full listings what changed fits on one page.
            pages = 1 + (poll.pages - 1) * rule.interval / rule.resync_interval
        return pages * 60 / rule.interval


def describe(rule: Rule) -> str:
    """A rule by what it matches."""
    text = f"id_regex {rule.pattern.pattern}" if rule.pattern is not None else f"id {rule.id}"
    wanted = ", ".join(f"{name}={value}" for name, value in sorted(rule.metadata))
    return f"{text} with {wanted}" if wanted else text
