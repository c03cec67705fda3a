"""What jobs will cost: series and requests, from polls of a few of them."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from exporter import collectors
from exporter.cli.preflight.forecast import Range
from exporter.collectors import new_store
from exporter.collectors.pool_nodes import PoolNodes
from exporter.config.resolved_rule import Rule
from exporter.exposition.body import Exposition, Format
from exporter.state.watched_job import SelectedJobs, WatchedJob


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


def owners(watched: Iterable[WatchedJob]) -> set[tuple[str, str]]:
    """The jobs and groups that have series."""
    return {each.owner for each in watched}


def _places(watched: Iterable[WatchedJob]) -> set[tuple[str, str, str]]:
    """Owners and their pools: some series are there for each."""
    return {(*each.owner, each.job.pool_id) for each in watched}


def _pools(watched: Iterable[WatchedJob]) -> set[str]:
    return {each.job.pool_id for each in watched}


@dataclass(frozen=True)
class _Series:
    """How many series there are, of owners and of the account; by pool, and without."""

    of_owners: int = 0
    of_owners_by_pool: int = 0
    of_account: int = 0
    of_account_by_pool: int = 0

    @classmethod
    def in_text(cls, text: bytes) -> _Series:
        counts = [0, 0, 0, 0]
        for line in text.splitlines():
            if not line.startswith(b"#"):
                is_account = b',job_id="' not in line and b',job_group="' not in line
                counts[2 * is_account + (b',pool_id="' in line)] += 1
        return cls(*counts)


class Sample:
    """Polls of some jobs of one rule, as the exporter would take them in."""

    def __init__(self, account: str, polls: Sequence[Poll], shown: Shown, now: float) -> None:
        exposition = Exposition(collectors.tables(shown.info_labels, shown.excluded))
        self._account = account
        self._polls = polls
        self._jobs = {poll.watched.job.id: poll.watched for poll in polls}.values()
        self._store = new_store(exposition)
        self._store.add_account(account)
        self._store.select(account, SelectedJobs(), now)
        self._store.flush()
        before = _Series.in_text(exposition.body(Format.TEXT).plain)
        self._store.select(account, SelectedJobs(tuple(self._jobs)), now)
        for poll in polls:
            job = poll.watched.job
            self._store.put_reading(account, job, poll.collector, poll.reading, None, now)
        self._store.flush()
        self._series = _Series.in_text(exposition.body(Format.TEXT).plain)
        self._more_of_account = self._series.of_account - before.of_account

    @property
    def jobs(self) -> int:
        """How many jobs were polled."""
        return len(self._jobs)

    def series_of_owners(self, watched: Sequence[WatchedJob]) -> int:
        """Series of so many jobs and groups, where they are like those that were polled."""
        if not self._jobs:
            return 0
        each = self._series.of_owners / len(owners(self._jobs))
        by_pool = self._series.of_owners_by_pool / len(_places(self._jobs))
        return round(each * len(owners(watched)) + by_pool * len(_places(watched)))

    def series_of_account(self, watched: Sequence[WatchedJob]) -> int:
        """Series of the account that are there because of so many jobs: its histograms."""
        if not self._jobs:
            return 0
        by_pool = self._series.of_account_by_pool / len(_pools(self._jobs))
        return self._more_of_account + round(by_pool * len(_pools(watched)))

    def requests_per_minute(self, jobs: int) -> Range:
        """Requests that so many jobs take, where they are like those that were polled."""
        if not self._jobs:
            return Range()
        each = math.fsum(self._requests_of_poll(poll) for poll in self._polls) / self.jobs * jobs
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


def own_series(account: str, nodes: PoolNodes | None, shown: Shown, now: float) -> int:
    """Series that an account has without any job."""
    exposition = Exposition(collectors.tables(shown.info_labels, shown.excluded))
    store = new_store(exposition)
    store.add_account(account)
    store.select(account, SelectedJobs(), now)
    if nodes is not None:
        store.put_pool_nodes(account, nodes, now)
    store.flush()
    return exposition.body(Format.TEXT).series


def describe(rule: Rule) -> str:
    """A rule by what it matches."""
    text = f"id_regex {rule.pattern.pattern}" if rule.pattern is not None else f"id {rule.id}"
    wanted = ", ".join(f"{name}={value}" for name, value in sorted(rule.metadata))
    return f"{text} with {wanted}" if wanted else text
