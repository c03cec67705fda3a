"""What jobs will cost, estimated from a few that are polled once: series and requests."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from exporter.cli.preflight.report import Range
from exporter.collectors import JOB_COLLECTORS, new_store
from exporter.collectors.pool_nodes import PoolNodes
from exporter.config import Rule
from exporter.exposition.body import Exposition
from exporter.exposition.metric import Table
from exporter.state.account import identity_of
from exporter.state.watched_job import SelectedJobs, WatchedJob


class SampledPoll(NamedTuple):
    """What one poll of a job read. `requests`: how many it took."""

    watched: WatchedJob
    collector: str
    reading: Any
    requests: int


class Sample:
    """A few jobs of one account, polled once, in a store of their own.

    Estimates grow in proportion to the number of jobs or groups. Series with a `pool_id` grow in
    proportion to the number of pools.
    """

    def __init__(
        self,
        account: str,
        tables: Mapping[str, Table[Any]],
        polls: Sequence[SampledPoll],
        nodes: PoolNodes | None,
        now: float,
    ) -> None:
        self._account = account
        self._exposition = Exposition(tables)
        store = new_store(self._exposition)
        store.add_account(account)
        store.select(account, SelectedJobs(), now)
        self.jobs = tuple({poll.watched.job.id: poll.watched for poll in polls}.values())
        store.select(account, SelectedJobs(self.jobs), now)
        self._unsettled: list[SampledPoll] = []
        """Polls of what can still change, so that the exporter will repeat them."""
        for poll in polls:
            job, collector = poll.watched.job, poll.collector
            folded = store.put_reading(account, job, collector, poll.reading, None, now)
            if folded is None or not JOB_COLLECTORS[collector].is_settled(folded.state):
                self._unsettled.append(poll)
        store.flush()
        self._account_lines = self._exposition.lines(identity_of(account))
        before = self._exposition.series(account)
        if nodes is not None:
            store.put_pool_nodes(account, nodes, now)
        self._node_series = self._exposition.series(account) - before

    def of_rule(self, rule: Rule) -> list[WatchedJob]:
        """The jobs of a rule that were polled."""
        return [watched for watched in self.jobs if watched.rule is rule]

    def series_of_rule(self, rule: Rule, watched: Sequence[WatchedJob]) -> int:
        """Series of the rule's jobs and groups."""
        sampled = self.of_rule(rule)
        owners = {each.owner for each in sampled}
        lines = [self._exposition.lines(identity_of(self._account, owner)) for owner in owners]
        of_owners = _ratio(lambda each: each.owner, watched, sampled)
        of_pools = _ratio(lambda each: (each.owner, each.job.pool_id), watched, sampled)
        return _count(b"".join(lines), of_owners, of_pools)

    def series_of_account(self, watched: Sequence[WatchedJob]) -> int:
        """Series of the account itself, with the histograms of its jobs without a group."""
        of_pools = _ratio(
            lambda each: each.job.pool_id,
            [each for each in watched if each.group is None],
            [each for each in self.jobs if each.group is None],
        )
        return _count(self._account_lines, 1.0, of_pools) + self._node_series

    def requests_per_minute(self, rule: Rule, jobs: int) -> Range:
        """Requests that so many jobs of a rule take."""
        polled = len(self.of_rule(rule))
        polls = [poll for poll in self._unsettled if poll.watched.rule is rule]
        if not polls:
            return Range()
        busy = sum(map(_requests_per_minute, polls)) / polled * jobs
        return Range(busy / max(1, rule.idle_interval // rule.interval), busy)


def _ratio(
    key: Callable[[WatchedJob], Hashable], every: Iterable[WatchedJob], some: Iterable[WatchedJob]
) -> float:
    """How many times as many different keys all jobs have as some of them."""
    sampled = len({key(each) for each in some})
    return len({key(each) for each in every}) / sampled if sampled else 0.0


def _count(lines: bytes, factor: float, factor_by_pool: float) -> int:
    """How many series there will be, where a sample has these lines."""
    by_pool = sum(b',pool_id="' in line for line in lines.splitlines())
    return round((lines.count(b"\n") - by_pool) * factor + by_pool * factor_by_pool)


def _requests_per_minute(poll: SampledPoll) -> float:
    rule, requests = poll.watched.rule, float(poll.requests)
    if JOB_COLLECTORS[poll.collector].lists and rule.resync_interval > rule.interval:
        # Between two full listings, the records that changed fit on one page.
        requests = 1 + (requests - 1) * rule.interval / rule.resync_interval
    return requests * 60 / rule.interval
