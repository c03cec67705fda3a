"""The one mutable thing: the latest state of each (account, job, collector), and all counters.

The event loop is the only writer. States are replaced, never changed, and what changes is rendered
at once (display.py); nothing else of the program keeps state about a job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from exporter import collectors
from exporter.batch.errors import AuthenticationFailed, CredentialError, PollError
from exporter.batch.models import Job, unix_time
from exporter.collectors.collector import Folded
from exporter.collectors.jobs import NAME as JOBS
from exporter.collectors.pool_nodes import NAME as POOL_NODES
from exporter.collectors.pool_nodes import PoolNodes
from exporter.exposition.body import Exposition
from exporter.state.account import (
    NOT_POLLED,
    REMEMBERED,
    AccountState,
    Leaving,
    Outcome,
    health_of,
    is_same_job,
    is_same_place,
    is_up_now,
    load,
    owner_of,
    saved,
)
from exporter.state.counters import Increments, total
from exporter.state.display import OF_JOBS, Display
from exporter.state.failures import Failures, JobFailure
from exporter.state.history import History
from exporter.state.journal import Owner, Saved, SavedJob
from exporter.state.totals import ACCOUNT, HISTOGRAMS, Totals
from exporter.state.watched_job import SelectedJobs, WatchedJob


class Store:
    """States by account, job and collector, counters, and their rendering."""

    def __init__(self, exposition: Exposition, totals: Totals, failures: Failures) -> None:
        self._totals = totals
        self._failures = failures
        self._accounts: dict[str, AccountState] = {}
        self.history = History()
        self._display = Display(exposition, self._accounts)

    def add_account(
        self, account: str, known: Saved, watch: Callable[[Job], WatchedJob | None]
    ) -> None:
        """Make place for an account, with what an earlier process knew of it.

        `watch`: a job under the rule that names it, whatever its state; None where no rule does.
        Its jobs are as if they had just left the selection: those that it still has go on where
        they were, the others are asked for what they did last.
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
                outcomes = {
                    # Not shown: it is as old as the process that saved it.
                    name: Outcome(load(name, left.states[name]), None, None, is_stale=True)
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
        self._display.remove_account(account)

    def show_all(self) -> None:
        """Show everything again, in an exposition that begins anew."""
        self._display.everything()
        self._totals.show_all()

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
        """Take over what other rules select of the known jobs; the service was not asked."""
        known = self.outcome(account, JOBS)
        self._take_selection(account, selected, now, None)
        state = self._accounts[account]
        state.outcomes = {**state.outcomes, JOBS: replace(known, state=selected)}

    def _take_selection(
        self, account: str, selected: SelectedJobs, now: float, asked_at: float | None
    ) -> None:
        state = self._accounts[account]
        found = {watched.job.id: watched for watched in selected.jobs}
        for job_id, watched in list(state.jobs.items()):
            if job_id not in found or not is_same_place(watched, found[job_id]):
                self._let_go(account, job_id)
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
                self._welcome(account, watched, is_first_listing=first)
            if stale or known is None or known != watched:
                self._display.job(account, watched, collectors.JOB, watched)
        self._display.of_account(account, collectors.SELECTED_JOBS, selected)

    def _welcome(self, account: str, watched: WatchedJob, *, is_first_listing: bool) -> None:
        """A job that was not selected before: is all that it did ours to count?"""
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
        self._welcome(account, watched, is_first_listing=False)
        state.jobs = dict(sorted({**state.jobs, watched.job.id: watched}.items()))
        self._display.job(account, watched, collectors.JOB, watched)
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
            self._display.of_account(account, collectors.SELECTED_JOBS, selected)

    def put_pool_nodes(self, account: str, snapshot: PoolNodes, now: float) -> None:
        """Node counts were read."""
        self._display.of_account(account, collectors.POOL_NODES, snapshot)
        self._account_outcome(account, POOL_NODES, Outcome(snapshot, None, now))

    def put_reading(
        self, account: str, job: Job, collector: str, reading: Any, made_from: Any, now: float
    ) -> Folded[Any] | None:
        """A poll of a job succeeded: fold what it read into the state and count what happened.

        `made_from`: the state that the poll was given. Gives what it came to; None where it was
        ignored, because the job is not selected any more, or is another one by now, or has another
        state by now: what happened in between would be counted twice.
        """
        if not self._is_current(account, job):
            return None
        state = self._accounts[account]
        before = self.outcome(account, collector, job.id).state
        if before is not made_from:
            return None
        kind = collectors.JOB_COLLECTORS[collector]
        folded: Folded[Any] = kind.fold(before, reading, now, job.id in state.new_jobs)
        watched = state.jobs[job.id]
        self._job_outcome(account, watched, collector, Outcome(folded.state, None, now))
        self._display.job(account, watched, collector, folded.state)
        self.history.add(account, job.id, collector, folded.state, now)
        is_new = job.id in state.new_jobs
        failures = self._fail(account, watched, folded, is_news=is_new or before is not None)
        self._count(account, watched, collector, folded, failures, is_new=is_new)
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

        `made_from`: the state that the poll was given; ignored where it is another one by now.
        """
        state = self._accounts[account]
        leaving = state.leaving.get(job.id)
        if leaving is None or not is_same_job(leaving.watched.job, job):
            return
        before = leaving.outcomes.get(collector, NOT_POLLED).state
        if before is not made_from:
            return
        kind = collectors.JOB_COLLECTORS[collector]
        folded: Folded[Any] = kind.fold(before, reading, 0.0, leaving.is_new)
        is_new, watched = leaving.is_new, leaving.watched
        failures = self._fail(account, watched, folded, is_news=is_new or before is not None)
        self._count(account, watched, collector, folded, failures, is_new=is_new)
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
            self._display.of_account(account, collectors.POOL_NODES, None)
        elif stale:
            self._display.of_account(account, collectors.SELECTED_JOBS, None)
            for watched in self._accounts[account].jobs.values():
                self._hide_job(account, watched, collectors.JOB)
        self._account_outcome(account, collector, outcome)

    def flush(self) -> None:
        """Render the groups of which a job has changed, and what they and accounts have counted."""
        self._display.flush()
        self._totals.flush()

    def _is_current(self, account: str, job: Job) -> bool:
        watched = self._accounts[account].jobs.get(job.id)
        return watched is not None and is_same_job(watched.job, job)

    def _let_go(self, account: str, job_id: str) -> None:
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
        for table in OF_JOBS:
            self._hide_job(account, watched, table)
        jobs: dict[str, SavedJob | None] = {job_id: None} if is_gone else {}
        if watched.group is None:
            self._totals.forget(account, owner_of(watched), jobs)
        elif jobs:
            self._totals.save_jobs(account, jobs)

    def _hide_job(self, account: str, watched: WatchedJob, table: str) -> None:
        self._display.hide_job(account, watched, table)
        # What a group has counted outlives its jobs.
        if watched.group is None and table in collectors.JOB_COLLECTORS:
            self._totals.hide(account, owner_of(watched), table)

    def _fail(
        self, account: str, watched: WatchedJob, folded: Folded[Any], *, is_news: bool
    ) -> Sequence[JobFailure]:
        """Note what failed. `is_news`: it happened since the job is watched."""
        failures = [
            JobFailure(account, watched.job.id, watched.group, each) for each in folded.failures
        ]
        return self._failures.add(account, failures, is_news=is_news)

    def _count(
        self,
        account: str,
        watched: WatchedJob,
        collector: str,
        folded: Folded[Any],
        failures: Sequence[JobFailure],
        *,
        is_new: bool,
    ) -> None:
        """Count what happened for the job or its group and the account; save it with the state."""
        state, job = self._accounts[account], watched.job
        counted: list[tuple[Owner, str, Increments]] = []
        if watched.group is not None or job.id in state.jobs:
            counted.append((owner_of(watched), collector, folded.increments))
        rows = collectors.JOB_COLLECTORS[collector].account
        of_account = total(
            [
                ((rows[name].row.name, tuple([labels[i] for i in rows[name].labels])), amount)
                for (name, labels), amount in folded.increments.items()
                if amount and name in rows
            ]
        )
        if of_account:
            counted.append((None, ACCOUNT, of_account))
        if folded.observations:
            observer = owner_of(watched) if watched.group is not None else None
            counted.append((observer, HISTOGRAMS, folded.observations))
        jobs = {}
        if self._totals.is_saved:
            jobs[job.id] = saved(job, collector, folded, is_new=is_new)
        self._totals.count(account, counted, jobs=jobs, failures=failures)

    def _job_outcome(
        self, account: str, watched: WatchedJob, collector: str, outcome: Outcome
    ) -> None:
        self._show_job_outcome(account, watched, collector, outcome)
        self._set_refused(account, outcome.error)

    def _show_job_outcome(
        self, account: str, watched: WatchedJob, collector: str, outcome: Outcome
    ) -> None:
        state = self._accounts[account]
        # Copied so, it takes half the room.
        outcomes = dict(state.job_outcomes.get(watched.job.id, {}))
        outcomes[collector] = outcome
        state.job_outcomes[watched.job.id] = outcomes
        self._display.job(account, watched, collectors.JOB_HEALTH, health_of(outcomes))

    def _account_outcome(self, account: str, collector: str, outcome: Outcome) -> None:
        state = self._accounts[account]
        state.outcomes = {**state.outcomes, collector: outcome}
        state.refusal = _refusal(outcome.error)
        self._display.health(account)

    def _set_refused(self, account: str, error: PollError | None) -> None:
        state = self._accounts[account]
        refusal = _refusal(error)
        if (refusal is None) != (state.refusal is None):
            state.refusal = refusal
            self._display.health(account)


def _refusal(error: PollError | None) -> PollError | None:
    return error if isinstance(error, AuthenticationFailed | CredentialError) else None
