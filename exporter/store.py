"""The one mutable thing: the latest snapshot of each (account, job, collector).

The event loop is the only writer. Snapshots are replaced, never changed, and what changes is
rendered at once (exposition.py); nothing else of the program keeps state about a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from exporter import collectors
from exporter.batch.models import Job
from exporter.collectors.health import AccountHealth, Health
from exporter.collectors.jobs import NAME as JOBS
from exporter.collectors.jobs import SelectedJobs
from exporter.collectors.pool_nodes import NAME as POOL_NODES
from exporter.collectors.pool_nodes import PoolNodes
from exporter.errors import AuthenticationFailed, CredentialError, PollError
from exporter.exposition import Exposition
from exporter.selection import WatchedJob


@dataclass(frozen=True)
class Outcome:
    """What the polls of one collector came to.

    `snapshot`: the last good values; None where there are none yet or they were dropped as stale.
    `error`: why the last poll failed; None where it succeeded.
    `succeeded_at`: Unix time of the last good poll.
    """

    snapshot: Any
    error: PollError | None
    succeeded_at: float | None

    @property
    def health(self) -> Health:
        """What is exposed of it."""
        return Health(self.error is None, self.succeeded_at)


NOT_POLLED = Outcome(None, None, None)


@dataclass
class _Account:
    """The state of one account."""

    jobs: dict[str, WatchedJob] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    job_outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    refused: bool = False
    """Whether the last answer to any poll was that the credentials are no good."""


class Store:
    """Snapshots by account, job and collector, and their rendering."""

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition
        self._accounts: dict[str, _Account] = {}

    def add_account(self, account: str) -> None:
        """Make place for an account."""
        self._accounts[account] = _Account()

    def jobs(self, account: str) -> Mapping[str, WatchedJob]:
        """The selected jobs of an account by id."""
        return self._accounts[account].jobs

    def outcome(self, account: str, collector: str, job_id: str | None = None) -> Outcome:
        """What the polls of a collector came to, for the account itself or one of its jobs."""
        state = self._accounts[account]
        outcomes = state.outcomes if job_id is None else state.job_outcomes.get(job_id, {})
        return outcomes.get(collector, NOT_POLLED)

    def is_up(self, account: str) -> bool | None:
        """Whether the account works as a whole; None while its jobs were never asked for."""
        return _is_up(self._accounts[account])

    def select(self, account: str, selected: SelectedJobs, now: float) -> None:
        """Take over a new selection of jobs: those that left it lose their series.

        A job that was deleted and created again under its id is another job.
        """
        state = self._accounts[account]
        found = {watched.job.id: watched for watched in selected}
        for job_id, watched in list(state.jobs.items()):
            if job_id not in found or not is_same_job(watched.job, found[job_id].job):
                self._drop_job(account, job_id)
        stale = self.outcome(account, JOBS).snapshot is None
        for job_id, watched in found.items():
            known = state.jobs.get(job_id)
            if stale or known is None or known.job != watched.job:
                self._exposition.put(collectors.JOB, (account, job_id), watched.job)
        state.jobs = found
        self._exposition.put(collectors.SELECTED_JOBS, (account,), selected)
        self._account_outcome(account, JOBS, Outcome(selected, None, now))

    def remove_job(self, account: str, job_id: str) -> None:
        """The job is gone: its series go at once, before the next listing says so."""
        state = self._accounts[account]
        if job_id not in state.jobs:
            return
        self._drop_job(account, job_id)
        state.jobs = {name: watched for name, watched in state.jobs.items() if name != job_id}
        if state.outcomes.get(JOBS, NOT_POLLED).snapshot is not None:
            selected = tuple(state.jobs.values())
            self._exposition.put(collectors.SELECTED_JOBS, (account,), selected)

    def put_pool_nodes(self, account: str, snapshot: PoolNodes, now: float) -> None:
        """Node counts were read."""
        self._exposition.put(collectors.POOL_NODES, (account,), snapshot)
        self._account_outcome(account, POOL_NODES, Outcome(snapshot, None, now))

    def put_reading(self, account: str, job: Job, collector: str, reading: Any, now: float) -> None:
        """A poll of a job succeeded: fold what it read into the snapshot.

        Ignored where the job is not selected any more, or is another one by now.
        """
        if not self._is_current(account, job):
            return
        previous = self.outcome(account, collector, job.id).snapshot
        snapshot = collectors.JOB_COLLECTORS[collector].fold(previous, reading, now)
        self._exposition.put(collector, (account, job.id), snapshot)
        self._job_outcome(account, job.id, collector, Outcome(snapshot, None, now))

    def confirm(self, account: str, job_id: str, collector: str, now: float) -> None:
        """The last snapshot is known to hold still, without the service having been asked."""
        before = self.outcome(account, collector, job_id)
        self._show_job_outcome(account, job_id, collector, replace(before, succeeded_at=now))

    def fail(
        self, account: str, collector: str, job: Job | None, error: PollError, *, stale: bool
    ) -> None:
        """A poll failed. `stale`: it failed for so long that the last values are dropped."""
        if job is not None and not self._is_current(account, job):
            return
        before = self.outcome(account, collector, job.id if job else None)
        outcome = Outcome(None if stale else before.snapshot, error, before.succeeded_at)
        if job is not None:
            if stale:
                self._exposition.remove(collector, (account, job.id))
            self._job_outcome(account, job.id, collector, outcome)
            return
        if stale and collector == POOL_NODES:
            self._exposition.remove(collectors.POOL_NODES, (account,))
        elif stale:
            self._exposition.remove(collectors.SELECTED_JOBS, (account,))
            for job_id in self._accounts[account].jobs:
                self._exposition.remove(collectors.JOB, (account, job_id))
        self._account_outcome(account, collector, outcome)

    def _is_current(self, account: str, job: Job) -> bool:
        watched = self._accounts[account].jobs.get(job.id)
        return watched is not None and is_same_job(watched.job, job)

    def _drop_job(self, account: str, job_id: str) -> None:
        self._accounts[account].job_outcomes.pop(job_id, None)
        for table in (collectors.JOB, collectors.JOB_HEALTH, *collectors.JOB_COLLECTORS):
            self._exposition.remove(table, (account, job_id))

    def _job_outcome(self, account: str, job_id: str, collector: str, outcome: Outcome) -> None:
        self._show_job_outcome(account, job_id, collector, outcome)
        self._set_refused(account, outcome.error)

    def _show_job_outcome(
        self, account: str, job_id: str, collector: str, outcome: Outcome
    ) -> None:
        state = self._accounts[account]
        outcomes = {**state.job_outcomes.get(job_id, {}), collector: outcome}
        state.job_outcomes[job_id] = outcomes
        health = {name: outcomes[name].health for name in sorted(outcomes)}
        self._exposition.put(collectors.JOB_HEALTH, (account, job_id), health)

    def _account_outcome(self, account: str, collector: str, outcome: Outcome) -> None:
        state = self._accounts[account]
        state.outcomes = {**state.outcomes, collector: outcome}
        state.refused = isinstance(outcome.error, AuthenticationFailed | CredentialError)
        self._show_account(account)

    def _set_refused(self, account: str, error: PollError | None) -> None:
        state = self._accounts[account]
        refused = isinstance(error, AuthenticationFailed | CredentialError)
        if refused != state.refused:
            state.refused = refused
            self._show_account(account)

    def _show_account(self, account: str) -> None:
        state = self._accounts[account]
        health = {name: state.outcomes[name].health for name in sorted(state.outcomes)}
        self._exposition.put(
            collectors.ACCOUNT_HEALTH, (account,), AccountHealth(_is_up(state), health)
        )


def _is_up(state: _Account) -> bool | None:
    # A failure of one job's poll is no failure of the account, unless it says that the
    # credentials are no good.
    listing = state.outcomes.get(JOBS)
    if listing is None:
        return None
    nodes = state.outcomes.get(POOL_NODES, NOT_POLLED)
    return (
        listing.error is None
        and not state.refused
        and not (nodes.error is not None and nodes.error.account_wide)
    )


def is_same_job(one: Job, other: Job) -> bool:
    """Whether two answers are about the same job and not two of the same id."""
    return one.creation_time == other.creation_time
