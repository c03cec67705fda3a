"""The one mutable thing: the latest state of each (account, job, collector), and all counters.

The event loop is the only writer. States are replaced, never changed, and what changes is shown at
once; only the gauges of groups wait for the next `flush`. Nothing else keeps state about a job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from exporter.batch.errors import AuthenticationFailed, CredentialError, PollError
from exporter.batch.models import Job, unix_time
from exporter.exposition.body import Exposition
from exporter.state import table_names
from exporter.state.account import (
    JOBS,
    NOT_POLLED,
    POOL_NODES,
    REMEMBERED,
    AccountHealth,
    AccountState,
    Health,
    Leaving,
    Outcome,
    health_of,
    identity_of,
    is_same_job,
    is_same_place,
    is_up_now,
    load,
    owner_of,
    problem_of,
    saved,
)
from exporter.state.collector import Events, Folded, JobCollector
from exporter.state.counters import Increments, total
from exporter.state.failures import Failures, JobFailure
from exporter.state.history import History
from exporter.state.journal import Owner, Saved, SavedJob
from exporter.state.totals import ACCOUNT, Totals
from exporter.state.watched_job import SelectedJobs, WatchedJob


class Store:
    """States by account, job and collector, counters, and what is shown of them.

    `collectors`: those of a job's things, by name.
    """

    def __init__(
        self,
        exposition: Exposition,
        totals: Totals,
        failures: Failures,
        collectors: Mapping[str, JobCollector[Any, Any]],
    ) -> None:
        self._exposition = exposition
        self._totals = totals
        self._failures = failures
        self._collectors = collectors
        self._job_tables = (table_names.JOB, table_names.JOB_HEALTH, *collectors)
        self._accounts: dict[str, AccountState] = {}
        self._changed_groups: dict[tuple[str, tuple[str, str], str], None] = {}
        """(account, owner, table) of groups in which a job has changed since the last flush."""
        self.history = History()

    def add_account(
        self, account: str, known: Saved, watch: Callable[[Job], WatchedJob | None]
    ) -> None:
        """Add an account, with what an earlier process knew of it.

        Its jobs are as if they had just left the selection: those that it still has go on where
        they were, the others are asked for what they did last. `watch`: a job under the rule that
        names it; None where no rule does.
        """
        state = self._accounts[account] = AccountState(watched_since=known.watched_since)
        self._totals.add_account(account, known)
        self._failures.restore(account, known.failures)
        for job_id, left in known.jobs.items():
            job = msgspec.json.decode(left.job, type=Job)
            watched = watch(job)
            if left.left_at is not None:
                state.left[job_id, unix_time(job.creation_time)] = None
            elif watched is None:
                self._totals.forget(account, ("job_id", job_id), {job_id: None})
            else:
                outcomes: dict[str, Outcome] = {
                    # Not shown: it is as old as the process that saved it.
                    name: Outcome(
                        load(self._collectors[name], left.states[name]), None, None, is_stale=True
                    )
                    for name in watched.rule.collect
                    if name in left.states
                }
                state.leaving[job_id] = Leaving(watched, outcomes, left.is_new)

    def remove_account(self, account: str) -> None:
        """Forget an account, and show nothing of it any more."""
        del self._accounts[account]
        self._totals.forget_account(account)
        self._failures.forget_account(account)
        self.history.forget_account(account)
        self._changed_groups = {key: None for key in self._changed_groups if key[0] != account}
        self._exposition.remove_account(account)

    def show_all(self) -> None:
        """Show everything again, in an exposition that begins anew."""
        for account, state in self._accounts.items():
            for table, name in (
                (table_names.SELECTED_JOBS, JOBS),
                (table_names.POOL_NODES, POOL_NODES),
            ):
                self._show_account(account, table, self.outcome(account, name).shown)
            if state.outcomes:
                self._show_health(account)
            for job_id, watched in state.jobs.items():
                for table in self._job_tables:
                    snapshot = self._snapshot(account, job_id, table)
                    if snapshot is not None:
                        self._show(account, watched, table, snapshot)
        self.flush()
        self._totals.show_all()

    async def settled(self) -> None:
        """Wait until all that was counted so far is saved and shown."""
        await self._totals.settled()

    @property
    def accounts(self) -> Mapping[str, AccountState]:
        """What is known of each account, to look at."""
        return self._accounts

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
        return is_up_now(self._accounts[account])

    def select(
        self, account: str, selected: SelectedJobs, now: float, asked_at: float | None = None
    ) -> None:
        """Take over a new selection of jobs: those that left it lose their series.

        A job that was deleted and created again under its id is another job. `asked_at`: when the
        listing began, in Unix seconds of the service; jobs created from then on are new.
        """
        self._take_selection(account, selected, now, asked_at)
        self._account_outcome(account, JOBS, Outcome(selected, None, now))
        self._totals.catch_up(account)

    def select_anew(self, account: str, selected: SelectedJobs, now: float) -> None:
        """Take over what other rules select of the jobs that are known, as if just listed."""
        known = self.outcome(account, JOBS)
        self._take_selection(account, selected, now, None)
        state = self._accounts[account]
        state.outcomes = {**state.outcomes, JOBS: msgspec.structs.replace(known, state=selected)}

    def _take_selection(
        self, account: str, selected: SelectedJobs, now: float, asked_at: float | None
    ) -> None:
        state = self._accounts[account]
        found = {watched.job.id: watched for watched in selected.jobs}
        for job_id, watched in list(state.jobs.items()):
            if job_id not in found or not is_same_place(watched, found[job_id]):
                self._add_leaving(account, job_id)
        first = state.watched_since is None
        if first:
            state.watched_since = now if asked_at is None else asked_at
            # At once: what comes after a restart is new, be there anything to count by then or not.
            self._totals.count(account, (), watched_since=state.watched_since)
        stale = self.outcome(account, JOBS).shown is None
        before, state.jobs = state.jobs, found
        for job_id, watched in found.items():
            known = before.get(job_id)
            if known is None or not is_same_place(known, watched):
                self._add_job(account, watched, is_first_listing=first)
            if stale or known is None or known != watched:
                self._show(account, watched, table_names.JOB, watched)
        self._show_account(account, table_names.SELECTED_JOBS, selected)

    def _add_job(self, account: str, watched: WatchedJob, *, is_first_listing: bool) -> None:
        """A job is selected that was not before: decide whether all that it did is counted."""
        state, job = self._accounts[account], watched.job
        if watched.group is not None:
            state.members.setdefault(owner_of(watched), {})[job.id] = None
        leaving = state.leaving.pop(job.id, None)
        if leaving is not None and is_same_job(leaving.watched.job, job):
            # It is back before it was asked for the last time: nothing was missed.
            state.job_outcomes[job.id] = dict(leaving.outcomes)
            is_new = leaving.is_new
        else:
            created = unix_time(job.creation_time)
            is_known = state.left.pop((job.id, created), 0) is None
            since = state.watched_since or 0.0
            is_new = created is not None and created >= since
            is_new = is_new and not is_first_listing and not is_known
            if leaving is not None:  # another job of this id
                self._totals.forget(account, ("job_id", job.id), {job.id: None})
        if is_new:
            state.new_jobs.add(job.id)
        else:
            state.new_jobs.discard(job.id)

    def take_back(self, account: str, watched: WatchedJob) -> None:
        """A job that left the selection is in it after all: it goes on where it was."""
        state = self._accounts[account]
        if watched.job.id in state.jobs:
            return
        self._add_job(account, watched, is_first_listing=False)
        state.jobs = dict(sorted({**state.jobs, watched.job.id: watched}.items()))
        self._show(account, watched, table_names.JOB, watched)
        self._show_selected(account)

    def remove_job(self, account: str, job_id: str) -> None:
        """The job is gone: its series go at once, before the next listing says so."""
        state = self._accounts[account]
        if job_id not in state.jobs:
            return
        self._drop_job(account, job_id, is_gone=True)
        state.jobs = {name: watched for name, watched in state.jobs.items() if name != job_id}
        self._show_selected(account)

    def _show_selected(self, account: str) -> None:
        before = self.outcome(account, JOBS).shown
        if before is not None:
            selected = replace(before, jobs=tuple(self._accounts[account].jobs.values()))
            self._show_account(account, table_names.SELECTED_JOBS, selected)

    def put_pool_nodes(self, account: str, snapshot: Any, now: float) -> None:
        """Node counts were read."""
        self._show_account(account, table_names.POOL_NODES, snapshot)
        self._account_outcome(account, POOL_NODES, Outcome(snapshot, None, now))

    def put_reading(
        self, account: str, job: Job, collector: str, reading: Any, made_from: Any, now: float
    ) -> Folded[Any] | None:
        """A poll of a job succeeded: fold what it read into the state and count what happened.

        `made_from`: the state that the reading was made from. Gives what the fold came to. None:
        the reading is void, because the job is not selected any more or is another one by now, or
        because the state has changed since.
        """
        if not self._is_current(account, job):
            return None
        state = self._accounts[account]
        outcomes = state.job_outcomes.setdefault(job.id, {})
        if outcomes.get(collector, NOT_POLLED).state is not made_from:
            return None
        watched, is_new = state.jobs[job.id], job.id in state.new_jobs
        kind = self._collectors[collector]
        folded: Folded[Any] = kind.fold(made_from, reading, now, is_new)
        outcomes[collector] = Outcome(folded.state, None, now)
        owner = owner_of(watched)
        if watched.group is None:
            self._exposition.put(collector, identity_of(account, owner), folded.state)
        else:
            self._changed_groups[account, owner, collector] = None
        self._show_job_health(account, watched)
        self._set_refusal(account, None)
        self.history.add(account, job.id, folded.points, now)
        self._count(
            *(account, watched, collector, folded.events),
            # What failed before the job was watched is not news.
            is_logged=is_new or made_from is not None,
            job=saved(job, kind, folded, is_new=is_new) if self._totals.is_saved else None,
        )
        return folded

    def leaving(self, account: str) -> Mapping[str, WatchedJob]:
        """Jobs that left the selection and are still to be asked for what they did last."""
        leaving = self._accounts[account].leaving
        return {job_id: left.watched for job_id, left in leaving.items()}

    def leaving_state(self, account: str, job_id: str, collector: str) -> Any:
        """The state of a collector of a job that left, as it was folded last; None: there is none.

        A job of which nothing was ever read has nothing to go on from.
        """
        leaving = self._accounts[account].leaving.get(job_id)
        return leaving.outcomes.get(collector, NOT_POLLED).state if leaving else None

    def put_last_reading(
        self, account: str, job: Job, collector: str, reading: Any, made_from: Any
    ) -> None:
        """What a job that left the selection did last: counted for its group and the account.

        The reading is void where the state is another one than it was made from.
        """
        state = self._accounts[account]
        leaving = state.leaving.get(job.id)
        if leaving is None or not is_same_job(leaving.watched.job, job):
            return
        before = leaving.outcomes.get(collector, NOT_POLLED).state
        if before is not made_from:
            return
        kind, is_new = self._collectors[collector], leaving.is_new
        folded: Folded[Any] = kind.fold(before, reading, 0.0, is_new)
        self._count(
            *(account, leaving.watched, collector, folded.events),
            is_logged=is_new or made_from is not None,
            job=saved(job, kind, folded, is_new=is_new) if self._totals.is_saved else None,
        )
        # Should it come back, it goes on from here.
        outcomes = {**leaving.outcomes, collector: Outcome(folded.state, None, None)}
        state.leaving[job.id] = replace(leaving, outcomes=outcomes)

    def forget_leaving(self, account: str, job_id: str, now: float, *, is_gone: bool) -> None:
        """A job that left was asked for the last time. `is_gone`: it does not exist any more."""
        leaving = self._accounts[account].leaving.pop(job_id, None)
        if leaving is not None:
            known = SavedJob(msgspec.json.encode(leaving.watched.job), False, left_at=now)
            self._totals.save_jobs(account, {job_id: None if is_gone else known})

    def confirm(self, account: str, job_id: str, collector: str, now: float) -> None:
        """The last state is known to hold still, without the service having been asked."""
        before = self.outcome(account, collector, job_id)
        watched = self._accounts[account].jobs[job_id]
        outcome = msgspec.structs.replace(before, succeeded_at=now)
        self._accounts[account].job_outcomes[job_id][collector] = outcome
        self._show_job_health(account, watched)

    def fail(
        self, account: str, collector: str, job: Job | None, error: PollError, *, stale: bool
    ) -> None:
        """A poll failed. `stale`: it failed for so long that the last values are dropped."""
        if job is not None and not self._is_current(account, job):
            return
        before = self.outcome(account, collector, job.id if job else None)
        is_stale = before.is_stale or stale
        outcome = msgspec.structs.replace(before, error=error, is_stale=is_stale)
        if job is not None:
            watched = self._accounts[account].jobs[job.id]
            state = self._accounts[account]
            state.job_outcomes.setdefault(job.id, {})[collector] = outcome
            self._show_job_health(account, watched)
            self._set_refusal(account, error)
            if stale:
                self._hide_job(account, watched, collector)
            return
        if stale and collector == POOL_NODES:
            self._show_account(account, table_names.POOL_NODES, None)
        elif stale:
            self._show_account(account, table_names.SELECTED_JOBS, None)
            for watched in self._accounts[account].jobs.values():
                self._hide_job(account, watched, table_names.JOB)
        self._account_outcome(account, collector, outcome)

    def flush(self) -> None:
        """Show the groups in which a job has changed, and what groups and accounts have counted."""
        changed, self._changed_groups = self._changed_groups, {}
        for account, owner, table in changed:
            members = [
                snapshot
                for job_id in self._accounts[account].members.get(owner, {})
                if (snapshot := self._snapshot(account, job_id, table)) is not None
            ]
            if members:
                self._exposition.put(table, identity_of(account, owner), None, members=members)
            else:
                self._exposition.remove(table, identity_of(account, owner))
        self._totals.flush()

    def _is_current(self, account: str, job: Job) -> bool:
        watched = self._accounts[account].jobs.get(job.id)
        return watched is not None and is_same_job(watched.job, job)

    def _add_leaving(self, account: str, job_id: str) -> None:
        """The job left the selection: what it does last may still be read."""
        state = self._accounts[account]
        outcomes = state.job_outcomes.get(job_id, {})
        is_new = job_id in state.new_jobs
        state.leaving[job_id] = Leaving(state.jobs[job_id], outcomes, is_new)
        self._drop_job(account, job_id)

    def _drop_job(self, account: str, job_id: str, *, is_gone: bool = False) -> None:
        state = self._accounts[account]
        watched = state.jobs[job_id]
        state.job_outcomes.pop(job_id, None)
        self.history.forget(account, job_id)
        state.new_jobs.discard(job_id)
        state.left[job_id, unix_time(watched.job.creation_time)] = None
        if len(state.left) > REMEMBERED:
            state.left.popitem(last=False)
        if watched.group is not None:
            state.members[owner_of(watched)].pop(job_id, None)
        for table in self._job_tables:
            self._hide_job(account, watched, table)
        jobs: dict[str, SavedJob | None] = {job_id: None} if is_gone else {}
        if watched.group is None:
            self._totals.forget(account, owner_of(watched), jobs)
        elif jobs:
            self._totals.save_jobs(account, jobs)

    def _show(self, account: str, watched: WatchedJob, table: str, snapshot: Any) -> None:
        """Show a job's snapshot; its group's with the next flush."""
        owner = owner_of(watched)
        if watched.group is None:
            self._exposition.put(table, identity_of(account, owner), snapshot)
        else:
            self._changed_groups[account, owner, table] = None

    def _hide_job(self, account: str, watched: WatchedJob, table: str) -> None:
        """Show nothing of a job in a table any more."""
        owner = owner_of(watched)
        if watched.group is not None:
            self._changed_groups[account, owner, table] = None
            return  # what a group has counted outlives its jobs
        self._exposition.remove(table, identity_of(account, owner))
        if table in self._collectors:
            self._totals.hide(account, owner, table)

    def _snapshot(self, account: str, job_id: str, table: str) -> Any:
        """What there is to show of a job in a table, or None."""
        state = self._accounts[account]
        if table == table_names.JOB:
            is_shown = self.outcome(account, JOBS).shown is not None
            return state.jobs.get(job_id) if is_shown else None
        if table == table_names.JOB_HEALTH:
            outcomes = state.job_outcomes.get(job_id)
            return health_of(outcomes) if outcomes else None
        return self.outcome(account, table, job_id).shown

    def _show_account(self, account: str, table: str, snapshot: Any) -> None:
        """Show a snapshot of the account itself; None: nothing of it."""
        if snapshot is None:
            self._exposition.remove(table, identity_of(account))
        else:
            self._exposition.put(table, identity_of(account), snapshot)

    def _show_health(self, account: str) -> None:
        """Show how the account's own polls went."""
        state = self._accounts[account]
        problem = problem_of(state)
        cause = problem.cause or problem.reason if problem is not None else None
        health = AccountHealth(is_up_now(state), health_of(state.outcomes), cause)
        self._show_account(account, table_names.ACCOUNT_HEALTH, health)

    def _show_job_health(self, account: str, watched: WatchedJob) -> None:
        """Show how the job's polls went."""
        state = self._accounts[account]
        health = {
            name: Health(outcome.error is None, outcome.succeeded_at)
            for name, outcome in sorted(state.job_outcomes[watched.job.id].items())
        }
        self._show(account, watched, table_names.JOB_HEALTH, health)

    def _count(
        self,
        account: str,
        watched: WatchedJob,
        collector: str,
        events: Events,
        *,
        is_logged: bool,
        job: SavedJob | None,
    ) -> None:
        """Count what happened for the job or its group and the account.

        `is_logged`: failures are. `job`: what the journal saves together with the counters.
        """
        job_id, owner = watched.job.id, owner_of(watched)
        failures = self._failures.add(
            account,
            [JobFailure(account, job_id, watched.group, each) for each in events.failures],
            is_news=is_logged,
        )
        counted: list[tuple[Owner, str, Increments]] = []
        if watched.group is not None or job_id in self._accounts[account].jobs:
            counted.append((owner, collector, events.increments))
        rows = self._collectors[collector].account
        of_account = total(
            [
                ((rows[name].row.name, tuple([labels[i] for i in rows[name].labels])), amount)
                for (name, labels), amount in events.increments.items()
                if amount and name in rows
            ]
        )
        if of_account:
            counted.append((None, ACCOUNT, of_account))
        if events.observations:
            observer = owner if watched.group is not None else None
            counted.append((observer, table_names.HISTOGRAMS, events.observations))
        jobs = {} if job is None else {job_id: job}
        self._totals.count(account, counted, jobs=jobs, failures=failures)

    def _account_outcome(self, account: str, collector: str, outcome: Outcome) -> None:
        state = self._accounts[account]
        state.outcomes = {**state.outcomes, collector: outcome}
        state.refusal = _refusal(outcome.error)
        self._show_health(account)

    def _set_refusal(self, account: str, error: PollError | None) -> None:
        state = self._accounts[account]
        refusal = _refusal(error)
        if (refusal is None) != (state.refusal is None):
            state.refusal = refusal
            self._show_health(account)


def _refusal(error: PollError | None) -> PollError | None:
    return error if isinstance(error, AuthenticationFailed | CredentialError) else None
