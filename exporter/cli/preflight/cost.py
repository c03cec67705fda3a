"""What jobs will cost, estimated from a few that are polled once: series and requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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

    Estimates of a rule grow in proportion to its jobs, or to its groups.
    """

    def __init__(
        self,
        account: str,
        tables: Mapping[str, Table[Any]],
        polls: Sequence[SampledPoll],
        nodes: PoolNodes | None,
        now: float,
    ) -> None:
        exposition = Exposition(tables)
        store = new_store(exposition)
        store.add_account(account)
        store.select(account, SelectedJobs(), now)
        self._jobs = tuple({poll.watched.job.id: poll.watched for poll in polls}.values())
        store.select(account, SelectedJobs(self._jobs), now)
        self._repeated: list[SampledPoll] = []
        """Polls of what can still change, so that the exporter will repeat them."""
        for poll in polls:
            job, collector = poll.watched.job, poll.collector
            folded = store.put_reading(account, job, collector, poll.reading, None, now)
            if folded is None or not JOB_COLLECTORS[collector].is_settled(folded.state):
                self._repeated.append(poll)
        if nodes is not None:
            store.put_pool_nodes(account, nodes, now)
        store.flush()
        self._series = {
            watched.owner: exposition.lines(identity_of(account, watched.owner)).count(b"\n")
            for watched in self._jobs
        }
        self.series_of_account = exposition.series(account) - sum(self._series.values())
        """Series of the account itself."""

    def series_of_rule(self, rule: Rule, jobs: Sequence[WatchedJob]) -> int:
        """Series of these jobs of a rule, or of their groups."""
        sampled = {watched.owner for watched in self._jobs if watched.rule is rule}
        if not sampled:
            return 0
        series = sum(self._series[owner] for owner in sampled)
        return round(series / len(sampled) * len({watched.owner for watched in jobs}))

    def requests_per_minute(self, rule: Rule, jobs: int) -> float:
        """Requests that so many jobs of a rule take while all are busy."""
        polls = [poll for poll in self._repeated if poll.watched.rule is rule]
        if not polls:
            return 0.0
        sampled = len({poll.watched.job.id for poll in polls})
        return sum(map(_requests_per_minute, polls)) / sampled * jobs


def _requests_per_minute(poll: SampledPoll) -> float:
    rule, requests = poll.watched.rule, float(poll.requests)
    if JOB_COLLECTORS[poll.collector].lists and rule.resync_interval > rule.interval:
        # Between two full listings, the records that changed fit on one page.
        requests = 1 + (requests - 1) * rule.interval / rule.resync_interval
    return requests * 60 / rule.interval
