"""The one mutable thing: the latest state of each (account, job, collector), and all counters.

The event loop is the only writer. States are replaced, never changed, and what changes is rendered
at once (exposition.py); nothing else of the program keeps state about a job.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from exporter import collectors
from exporter.batch.models import Job, unix_time
from exporter.collectors.collector import Folded
from exporter.collectors.health import AccountHealth, Health
from exporter.collectors.jobs import NAME as JOBS
from exporter.collectors.jobs import SelectedJobs
from exporter.collectors.pool_nodes import NAME as POOL_NODES
from exporter.collectors.pool_nodes import PoolNodes
from exporter.counters import Counters, Increments, total
from exporter.errors import AuthenticationFailed, CredentialError, PollError
from exporter.exposition import Exposition
from exporter.metric import Identity
from exporter.selection import WatchedJob

REMEMBERED = 100_000
"""Jobs that left the selection and are remembered, so that one that comes back is not new."""


@dataclass(frozen=True)
class Outcome:
    """What the polls of one collector came to.

    `state`: as it was last folded; None where there is none yet. It is kept while polls fail, so
    that nothing is counted twice after.
    `is_stale`: polls failed for so long that nothing of it is shown any more.
    `error`: why the last poll failed; None where it succeeded.
    `succeeded_at`: Unix time of the last good poll.
    """

    state: Any
    error: PollError | None
    succeeded_at: float | None
    is_stale: bool = False

    @property
    def shown(self) -> Any:
        """The state, or None where it is not to be shown."""
        return None if self.is_stale else self.state

    @property
    def health(self) -> Health:
        """What is exposed of it."""
        return Health(self.error is None, self.succeeded_at)


NOT_POLLED = Outcome(None, None, None)

Owner = tuple[str, str]
"""Whose series: (label name, value), as ("job_id", …) or ("job_group", …)."""


@dataclass
class _Account:
    """The state of one account."""

    jobs: dict[str, WatchedJob] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    job_outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    members: dict[Owner, dict[str, None]] = field(default_factory=dict)
    """Ids of the jobs of each group; a dictionary, for the order must not depend on hashes."""
    counters: dict[tuple[Owner, str], Counters] = field(default_factory=dict)
    """Of each job or group, by collector."""
    totals: Counters = field(default_factory=Counters)
    histograms: dict[Owner | None, Counters] = field(default_factory=dict)
    """Of each group; None: of the jobs without one."""
    watched_since: float | None = None
    new_jobs: set[str] = field(default_factory=set)
    left: OrderedDict[tuple[str, float | None], None] = field(default_factory=OrderedDict)
    refused: bool = False
    """Whether the last answer to any poll was that the credentials are no good."""


class Store:
    """States by account, job and collector, counters, and their rendering."""

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition
        self._accounts: dict[str, _Account] = {}
        self._dirty: dict[tuple[str, Owner, str], None] = {}

    def add_account(self, account: str) -> None:
        """Make place for an account."""
        state = self._accounts[account] = _Account()
        zeros = dict.fromkeys(collectors.ACCOUNT_ZEROS, 0)
        state.totals = state.totals.add(zeros)
        self._show_totals(account)

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

    def select(
        self, account: str, selected: SelectedJobs, now: float, asked_at: float | None = None
    ) -> None:
        """Take over a new selection of jobs: those that left it lose their series.

        A job that was deleted and created again under its id is another job. `asked_at`: when the
        listing began, in Unix seconds of the service; jobs created from then on are new.
        """
        state = self._accounts[account]
        found = {watched.job.id: watched for watched in selected}
        for job_id, watched in list(state.jobs.items()):
            if job_id not in found or not is_same_place(watched, found[job_id]):
                self._drop_job(account, job_id)
        first = state.watched_since is None
        if first:
            state.watched_since = now if asked_at is None else asked_at
        stale = self.outcome(account, JOBS).shown is None
        before, state.jobs = state.jobs, found
        for job_id, watched in found.items():
            known = before.get(job_id)
            if known is None or not is_same_job(known.job, watched.job):
                self._welcome(state, watched, is_first_listing=first)
            if stale or known is None or known.job != watched.job:
                self._show_job(account, watched, collectors.JOB, watched)
        self._exposition.put(collectors.SELECTED_JOBS, _identity(account), selected)
        self._account_outcome(account, JOBS, Outcome(selected, None, now))
        self._catch_up(account)

    def _welcome(self, state: _Account, watched: WatchedJob, *, is_first_listing: bool) -> None:
        """A job that was not selected before: is all that it did ours to count?"""
        job = watched.job
        created = unix_time(job.creation_time)
        is_known = state.left.pop((job.id, created), 0) is None
        is_new = created is not None and created >= (state.watched_since or 0.0)
        if is_new and not is_first_listing and not is_known:
            state.new_jobs.add(job.id)
        else:
            state.new_jobs.discard(job.id)
        if watched.group is not None:
            state.members.setdefault(_owner(watched), {})[job.id] = None

    def remove_job(self, account: str, job_id: str) -> None:
        """The job is gone: its series go at once, before the next listing says so."""
        state = self._accounts[account]
        if job_id not in state.jobs:
            return
        self._drop_job(account, job_id)
        state.jobs = {name: watched for name, watched in state.jobs.items() if name != job_id}
        if self.outcome(account, JOBS).shown is not None:
            selected = tuple(state.jobs.values())
            self._exposition.put(collectors.SELECTED_JOBS, _identity(account), selected)

    def put_pool_nodes(self, account: str, snapshot: PoolNodes, now: float) -> None:
        """Node counts were read."""
        self._exposition.put(collectors.POOL_NODES, _identity(account), snapshot)
        self._account_outcome(account, POOL_NODES, Outcome(snapshot, None, now))

    def put_reading(self, account: str, job: Job, collector: str, reading: Any, now: float) -> int:
        """A poll of a job succeeded: fold what it read into the state and count what happened.

        Ignored where the job is not selected any more, or is another one by now. Gives the number
        of corrections that a full listing made.
        """
        if not self._is_current(account, job):
            return 0
        state = self._accounts[account]
        before = self.outcome(account, collector, job.id).state
        kind = collectors.JOB_COLLECTORS[collector]
        folded: Folded[Any] = kind.fold(before, reading, now, job.id in state.new_jobs)
        watched = state.jobs[job.id]
        self._job_outcome(account, watched, collector, Outcome(folded.state, None, now))
        self._count(account, watched, collector, folded.increments)
        self._observe(account, watched, folded.observations)
        self._show_job(account, watched, collector, folded.state)
        return folded.corrections

    def confirm(self, account: str, job_id: str, collector: str, now: float) -> None:
        """The last state is known to hold still, without the service having been asked."""
        before = self.outcome(account, collector, job_id)
        watched = self._accounts[account].jobs[job_id]
        self._show_job_outcome(account, watched, collector, replace(before, succeeded_at=now))

    def fail(
        self, account: str, collector: str, job: Job | None, error: PollError, *, stale: bool
    ) -> None:
        """A poll failed. `stale`: it failed for so long that the last values are dropped."""
        if job is not None and not self._is_current(account, job):
            return
        before = self.outcome(account, collector, job.id if job else None)
        outcome = replace(before, error=error, is_stale=before.is_stale or stale)
        if job is not None:
            watched = self._accounts[account].jobs[job.id]
            self._job_outcome(account, watched, collector, outcome)
            if stale:
                self._hide_job(account, watched, collector)
            return
        if stale and collector == POOL_NODES:
            self._exposition.remove(collectors.POOL_NODES, _identity(account))
        elif stale:
            self._exposition.remove(collectors.SELECTED_JOBS, _identity(account))
            for watched in self._accounts[account].jobs.values():
                self._hide_job(account, watched, collectors.JOB)
        self._account_outcome(account, collector, outcome)

    def flush(self) -> None:
        """Render the groups of which a job has changed."""
        dirty, self._dirty = self._dirty, {}
        for account, owner, table in dirty:
            state = self._accounts[account]
            identity = _identity(account, owner)
            snapshots = [
                snapshot
                for job_id in state.members.get(owner, {})
                if (snapshot := self._snapshot(account, job_id, table)) is not None
            ]
            if snapshots:
                self._exposition.put_group(table, identity, snapshots)
            else:
                self._exposition.remove(table, identity)

    def _snapshot(self, account: str, job_id: str, table: str) -> Any:
        """What a job contributes to a table of its group, or None."""
        state = self._accounts[account]
        if table == collectors.JOB:
            is_shown = self.outcome(account, JOBS).shown is not None
            return state.jobs.get(job_id) if is_shown else None
        outcomes = state.job_outcomes.get(job_id, {})
        if table == collectors.JOB_HEALTH:
            return _health(outcomes) if outcomes else None
        return outcomes.get(table, NOT_POLLED).shown

    def _is_current(self, account: str, job: Job) -> bool:
        watched = self._accounts[account].jobs.get(job.id)
        return watched is not None and is_same_job(watched.job, job)

    def _drop_job(self, account: str, job_id: str) -> None:
        state = self._accounts[account]
        watched = state.jobs[job_id]
        state.job_outcomes.pop(job_id, None)
        state.left[job_id, unix_time(watched.job.creation_time)] = None
        if len(state.left) > REMEMBERED:
            state.left.popitem(last=False)
        if watched.group is not None:
            state.members[_owner(watched)].pop(job_id, None)
        for table in (collectors.JOB, collectors.JOB_HEALTH, *collectors.JOB_COLLECTORS):
            self._hide_job(account, watched, table)
        if watched.group is None:
            for collector in collectors.JOB_COLLECTORS:
                state.counters.pop((_owner(watched), collector), None)

    def _show_job(self, account: str, watched: WatchedJob, table: str, snapshot: Any) -> None:
        if watched.group is None:
            self._exposition.put(table, _identity(account, _owner(watched)), snapshot)
            if table in collectors.JOB_COLLECTORS:
                self._show_counters(account, _owner(watched), table)
        else:
            self._dirty[account, _owner(watched), table] = None

    def _hide_job(self, account: str, watched: WatchedJob, table: str) -> None:
        if watched.group is None:
            identity = _identity(account, _owner(watched))
            self._exposition.remove(table, identity)
            if table in collectors.JOB_COLLECTORS:
                self._exposition.remove(collectors.counters_of(table), identity)
        else:
            # What a group has counted outlives its jobs.
            self._dirty[account, _owner(watched), table] = None

    def _count(
        self, account: str, watched: WatchedJob, collector: str, increments: Increments
    ) -> None:
        state = self._accounts[account]
        owner = _owner(watched)
        before = state.counters.get((owner, collector), Counters())
        state.counters[owner, collector] = before.add(increments)
        if watched.group is not None:
            self._show_counters(account, owner, collector)
        rows = collectors.JOB_COLLECTORS[collector].account
        of_account = total(
            ((rows[name].row.name, tuple(labels[i] for i in rows[name].labels)), amount)
            for (name, labels), amount in increments.items()
            if name in rows and amount
        )
        if of_account:
            state.totals = state.totals.add(of_account)
            self._show_totals(account)

    def _observe(self, account: str, watched: WatchedJob, observations: Increments) -> None:
        state = self._accounts[account]
        owner = _owner(watched) if watched.group is not None else None
        before = state.histograms.get(owner, Counters())
        # Most polls observe nothing, and an account may have many pools to render.
        news = {k: n for k, n in observations.items() if n or k not in before.totals}
        if news:
            state.histograms[owner] = before.add(news)
            self._show_histograms(account, owner)

    def _catch_up(self, account: str) -> None:
        """Expose in full what only appeared when it was last counted, and no poll will follow."""
        state = self._accounts[account]
        for (owner, collector), counters in state.counters.items():
            if counters.is_behind and owner[0] == "job_group":
                state.counters[owner, collector] = counters.add({})
                self._show_counters(account, owner, collector)
        for observer, histograms in state.histograms.items():
            if histograms.is_behind:
                state.histograms[observer] = histograms.add({})
                self._show_histograms(account, observer)

    def _show_counters(self, account: str, owner: Owner, collector: str) -> None:
        counters = self._accounts[account].counters.get((owner, collector))
        if counters is not None:
            table = collectors.counters_of(collector)
            self._exposition.put(table, _identity(account, owner), counters)

    def _show_totals(self, account: str) -> None:
        totals = self._accounts[account].totals
        self._exposition.put(collectors.ACCOUNT_COUNTERS, _identity(account), totals)

    def _show_histograms(self, account: str, owner: Owner | None) -> None:
        histograms = self._accounts[account].histograms[owner]
        self._exposition.put(collectors.HISTOGRAMS, _identity(account, owner), histograms)

    def _job_outcome(
        self, account: str, watched: WatchedJob, collector: str, outcome: Outcome
    ) -> None:
        self._show_job_outcome(account, watched, collector, outcome)
        self._set_refused(account, outcome.error)

    def _show_job_outcome(
        self, account: str, watched: WatchedJob, collector: str, outcome: Outcome
    ) -> None:
        state = self._accounts[account]
        outcomes = {**state.job_outcomes.get(watched.job.id, {}), collector: outcome}
        state.job_outcomes[watched.job.id] = outcomes
        self._show_job(account, watched, collectors.JOB_HEALTH, _health(outcomes))

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
        health = AccountHealth(_is_up(state), _health(state.outcomes))
        self._exposition.put(collectors.ACCOUNT_HEALTH, _identity(account), health)


def _health(outcomes: Mapping[str, Outcome]) -> Mapping[str, Health]:
    return {name: outcomes[name].health for name in sorted(outcomes)}


def _owner(watched: WatchedJob) -> Owner:
    if watched.group is not None:
        return "job_group", watched.group
    return "job_id", watched.job.id


def _identity(account: str, owner: Owner | None = None) -> Identity:
    return (("account", account), owner) if owner else (("account", account),)


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


def is_same_place(one: WatchedJob, other: WatchedJob) -> bool:
    """Whether it is the same job and its series are where they were."""
    return is_same_job(one.job, other.job) and one.group == other.group
