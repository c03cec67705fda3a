"""The store: the latest state of each (account, job, collector), and all counters.

The event loop is the only writer. States are replaced, never changed. A job's change is shown at
once, that of a group or an account with the next `flush`. No other object keeps state of a job.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from exporter.batch.errors import PollError
from exporter.batch.models import Job, unix_time
from exporter.batch.service_clock import MAX_SKEW
from exporter.batch.spellings import Spellings
from exporter.exposition.body import Exposition
from exporter.exposition.metric import Identity
from exporter.state import table_names
from exporter.state.account import (
    JOBS,
    POOL_NODES,
    REMEMBERED,
    AccountState,
    Owner,
    identity_of,
)
from exporter.state.collector import Events, Folded, JobCollector
from exporter.state.counters import Increments, total
from exporter.state.failures import Failures
from exporter.state.groups import Groups
from exporter.state.history import History
from exporter.state.recent import Counted, RecentCounts
from exporter.state.saved import Changes, Saved, SavedJob
from exporter.state.totals import ACCOUNT, Totals
from exporter.state.watched_job import (
    NOT_POLLED,
    Health,
    JobState,
    Outcome,
    SelectedJobs,
    WatchedJob,
)

ACCOUNT_TABLES = (table_names.ACCOUNT_HEALTH, table_names.SELECTED_JOBS, table_names.POOL_NODES)


class Store:
    """States by account, job and collector, counters, and what is shown of them.

    `collectors`: those of jobs, by name. `ended(before, after, spellings)`: what is counted of a
    job's end; see `exporter.collectors.jobs.ended`.
    """

    def __init__(
        self,
        exposition: Exposition,
        totals: Totals,
        failures: Failures,
        collectors: Mapping[str, JobCollector[Any, Any]],
        ended: Callable[[Job | None, Job | None, Spellings], Increments],
    ) -> None:
        self._ended = ended
        self._exposition = exposition
        self._totals = totals
        self._failures = failures
        self._collectors = collectors
        self._job_tables = (table_names.JOB, table_names.JOB_HEALTH, *collectors)
        self._accounts: dict[str, AccountState] = {}
        self._groups = Groups(exposition)
        self.history = History()

    def add_account(
        self,
        account: str,
        known: Saved | None = None,
        watch: Callable[[SavedJob], WatchedJob] | None = None,
    ) -> None:
        """Add an account. `known`: what an earlier process saved of it.

        The saved jobs begin as if they had just left the selection. The first listing selects
        those that still exist, and they continue; the others are read once more.
        `watch(saved)`: the job under the rule that names it, or under a rule to read it once more;
        None if no job is saved.
        """
        known = known or Saved()
        state = self._accounts[account] = AccountState(
            watched_since=known.watched_since,
            listed_at=known.listed_at,
            recent=RecentCounts(known.recent),
            spellings=Spellings(known.spellings),
        )
        self._totals.add_account(account, known)
        self._failures.restore(account, known.failures)
        owners = [owner for owner, _ in known.counters if owner and owner[0] == "job_group"]
        state.groups = {**{name: None for _, name in owners}, **known.groups}
        for job_id, saved in sorted(known.jobs.items(), key=lambda job: job[1].left_at or 0.0):
            assert watch is not None, "jobs are watched under rules"
            if saved.left_at is not None:
                state.left[job_id, unix_time(saved.job.creation_time)] = None
            else:
                outcomes = {
                    name: Outcome(known_state, None, None).hidden()
                    for name, known_state in saved.states.items()
                }
                state.leaving[job_id] = JobState(watch(saved), saved.is_new, outcomes)

    def snapshot(self, now: float) -> Mapping[str, Saved]:
        """All that is known of each account, as `add_account` takes it. `now`: Unix time."""
        return {
            account: self._saved(account, state, now) for account, state in self._accounts.items()
        }

    def _saved(self, account: str, state: AccountState, now: float) -> Saved:
        jobs = {}
        for job_id, created in state.left:
            moment = None if created is None else dt.datetime.fromtimestamp(created, dt.UTC)
            at = moment.isoformat() if moment else None
            jobs[job_id] = SavedJob(Job(job_id, creation_time=at), False, left_at=now)
        for job_id, entry in (*state.leaving.items(), *state.jobs.items()):
            states = {
                name: outcome.state
                for name, outcome in entry.outcomes.items()
                if outcome.state is not None
            }
            watched = entry.watched
            jobs[job_id] = SavedJob(watched.job, entry.is_new, watched.group, states=states)
        groups = {
            name: now if seen_at is None else seen_at for name, seen_at in state.groups.items()
        }
        counters, failures = self._totals.saved(account), self._failures.of(account)
        return Saved(
            state.watched_since,
            state.listed_at,
            counters,
            jobs,
            failures,
            recent=state.recent.all,
            spellings=state.spellings.all,
            groups=groups,
        )

    def remove_account(self, account: str) -> None:
        """Forget an account, and show nothing of it any more."""
        del self._accounts[account]
        self._totals.forget_account(account)
        self._failures.forget_account(account)
        self.history.forget_account(account)
        self._groups.forget(account)
        self._exposition.remove_account(account)

    def show_all(self) -> None:
        """Show everything again, in an exposition that begins anew."""
        self._groups.forget()
        for account, state in self._accounts.items():
            self._show_account(account, *ACCOUNT_TABLES)
            for entry in state.jobs.values():
                for table in self._job_tables:
                    self._show(account, entry, table)
        self._groups.flush()
        self._totals.show_all()

    async def all_saved(self) -> None:
        """Wait until all that was counted so far is saved and shown."""
        await self._totals.all_saved()

    def count_as_read(self) -> None:
        """Take all that counters have exposed so far as read by every client."""
        self._totals.count_as_read()

    @property
    def accounts(self) -> Mapping[str, AccountState]:
        """What is known of each account, to look at."""
        return self._accounts

    def jobs(self, account: str) -> Mapping[str, JobState]:
        """The selected jobs of an account by id."""
        return self._accounts[account].jobs

    def leaving(self, account: str) -> Mapping[str, JobState]:
        """Jobs that left the selection, or ended before they were seen, by id."""
        return self._accounts[account].leaving

    def outcome(self, account: str, collector: str, job_id: str | None = None) -> Outcome:
        """What the polls of a collector came to, for the account itself or one of its jobs."""
        state = self._accounts[account]
        if job_id is None:
            return state.outcomes.get(collector, NOT_POLLED)
        entry = state.entry(job_id)
        return entry.outcome(collector) if entry else NOT_POLLED

    def watch_since(self, account: str, moment: float) -> None:
        """Correct the time since which jobs are new, in Unix seconds of the service."""
        self._accounts[account].watched_since = moment

    def select(
        self,
        account: str,
        selected: SelectedJobs,
        now: float,
        asked_at: float | None = None,
        ended: Iterable[WatchedJob] = (),
        listed_at: float | None = None,
    ) -> None:
        """Replace the selected jobs. Jobs that left the selection lose their gauges.

        A job that was deleted and created again under its id is another job. `asked_at`: when the
        listing began, in Unix seconds of the service; jobs created after it are new. `ended`: jobs
        that the listing shows as over; those that were never seen are read for the counters.
        `listed_at`: what ended before it need not be listed again; None: `asked_at`.
        """
        state = self._accounts[account]
        asked_at = now if asked_at is None else asked_at
        if is_first := state.watched_since is None:
            state.watched_since = asked_at
        elif abs(asked_at - now) < MAX_SKEW:
            # A clock may have been wrong at first: until that time no job would be new.
            state.watched_since = min(state.watched_since, asked_at)
        state.listed_at = listed_at = asked_at if listed_at is None else listed_at
        was_shown = self.outcome(account, JOBS).shown is not None
        state.outcomes[JOBS] = Outcome(selected, None, now)
        self._take_selection(account, selected, is_first=is_first)
        ended = tuple(ended)
        self._take_ended(account, ended)
        self._forget_replaced(account, (*selected.jobs, *ended), now)
        recent = self._confirm_recent(state, (*selected.jobs, *ended), asked_at)
        # Saved at once: what comes after a restart is new, even if nothing is counted by then.
        since = state.watched_since
        self._totals.count(
            Changes(account, watched_since=since, listed_at=listed_at, recent=recent)
        )
        if not was_shown:
            for entry in state.jobs.values():
                self._show(account, entry, table_names.JOB)
        self._account_polled(account, None, table_names.SELECTED_JOBS)

    def select_anew(self, account: str, selected: SelectedJobs) -> None:
        """Replace the selected jobs after a reload, without a listing."""
        state = self._accounts[account]
        known = self.outcome(account, JOBS)
        state.outcomes[JOBS] = msgspec.structs.replace(known, state=selected)
        self._take_selection(account, selected, is_first=False)
        self._show_account(account, table_names.SELECTED_JOBS)

    def _take_selection(self, account: str, selected: SelectedJobs, *, is_first: bool) -> None:
        state = self._accounts[account]
        found = {watched.job.id: watched for watched in selected.jobs}
        for job_id, entry in list(state.jobs.items()):
            watched = found.get(job_id)
            if (
                watched is None
                or watched.group != entry.watched.group
                or not watched.is_same_job(entry.watched.job)
            ):
                self._leave(account, job_id)
        before, state.jobs = state.jobs, {}
        for job_id, watched in found.items():
            known = before.get(job_id)
            if known is None:
                self._enter(account, watched, is_first=is_first)
            else:
                state.jobs[job_id] = known
                self._rewatch(account, known, watched)

    def _take_ended(self, account: str, ended: Iterable[WatchedJob]) -> None:
        """Read jobs that began and ended between two listings: see `leaving`."""
        state = self._accounts[account]
        for watched in ended:
            job, created = watched.job, unix_time(watched.job.creation_time)
            known = self._entry(account, job) is not None or (job.id, created) in state.left
            if not known and created is not None and created >= (state.watched_since or 0.0):
                self._forget_predecessor(account, state.leaving.get(job.id))
                state.leaving[job.id] = JobState(watched, is_new=True)
                self._count_end(account, watched, None, job, is_new=True)
            elif (entry := state.leaving.get(job.id)) is not None:
                self.describe_leaving(account, entry, job)

    def _forget_replaced(self, account: str, listed: Iterable[WatchedJob], now: float) -> None:
        """Forget leaving jobs if another job has the same id in another case."""
        by_id = {watched.job.id.lower(): watched.job for watched in listed}
        for job_id, entry in list(self._accounts[account].leaving.items()):
            job = by_id.get(job_id.lower())
            if job is not None and not entry.watched.is_same_job(job):
                self.forget_leaving(account, job_id, now, is_gone=True)

    def _confirm_recent(
        self, state: AccountState, listed: Iterable[WatchedJob], asked_at: float
    ) -> Mapping[str, Sequence[Counted]]:
        by_id = {watched.job.id.lower(): watched.job for watched in listed}

        def created(job_id: str) -> float | None:
            job = by_id.get(job_id)
            return unix_time(job.creation_time) if job else None

        def is_read(job_id: str, collector: str) -> bool:
            entry = state.entry(by_id[job_id].id)
            return entry is None or entry.outcome(collector).state is not None

        return state.recent.listed(asked_at, created, is_read)

    def describe_leaving(self, account: str, entry: JobState, job: Job) -> None:
        """A job that left is seen again."""
        before = entry.watched
        if before.is_same_job(job) and before.job != job:
            entry.watched = msgspec.structs.replace(before, job=job)
            self._count_end(account, entry.watched, before.job, job, is_new=entry.is_new)

    def _count_end(
        self,
        account: str,
        watched: WatchedJob,
        before: Job | None,
        after: Job | None,
        *,
        is_new: bool,
    ) -> None:
        """Count the end of a job where it is seen now, and save the job as it is."""
        spellings = self._accounts[account].spellings
        increments = self._ended(before, after, spellings)
        owner = watched.owner if watched.group is not None else None
        saved = {} if after is None else {after.id: SavedJob(after, is_new, watched.group)}
        counted = [(owner, table_names.JOB_ENDS, increments)]
        changes = Changes(account, jobs=saved, spellings=spellings.take_new())
        self._totals.count(changes, counted)

    def _forget_predecessor(self, account: str, entry: JobState | None) -> None:
        """Forget the job that had an id before. The counters of the id go on."""
        if entry is not None:
            watched = entry.watched
            self._count_end(account, watched, watched.job, None, is_new=False)
            self._totals.count(Changes(account, jobs={watched.job.id: None}))

    def _enter(self, account: str, watched: WatchedJob, *, is_first: bool = False) -> None:
        """A job enters the selection. If it is new, all that it did is counted."""
        state, job = self._accounts[account], watched.job
        entry = state.leaving.pop(job.id, None)
        if entry is None or not watched.is_same_job(entry.watched.job):
            self._forget_predecessor(account, entry)
            created = unix_time(job.creation_time)
            is_known = state.left.pop((job.id, created), 0) is None
            is_new = created is not None and created >= (state.watched_since or 0.0)
            entry = JobState(watched, is_new and not is_first and not is_known)
            self._count_end(
                account, watched, None if entry.is_new else job, job, is_new=entry.is_new
            )
        else:
            self._count_end(account, watched, entry.watched.job, job, is_new=entry.is_new)
            if entry.lost_at is not None:
                entry.outcomes = {name: each.hidden() for name, each in entry.outcomes.items()}
        self._set_watched(account, entry, watched)
        state.jobs[job.id] = entry
        if watched.group is not None:
            state.members[watched.owner] += 1
            state.groups.setdefault(watched.group, None)
            self._totals.set_has_jobs(account, watched.owner, has_jobs=True)
            self._totals.forget(account, ("job_id", job.id), {})  # from before it had a group
        else:
            self._totals.keep(account, watched.owner)
        self._hide_unwanted(entry)
        for table in self._job_tables:
            self._show(account, entry, table)

    def _set_watched(self, account: str, entry: JobState, watched: WatchedJob) -> None:
        before, entry.watched = entry.watched, watched
        if before.group != watched.group:
            saved = SavedJob(watched.job, entry.is_new, watched.group)
            self._totals.count(Changes(account, jobs={watched.job.id: saved}))

    def watch_leaving(self, account: str, watch: Callable[[SavedJob], WatchedJob]) -> None:
        """Put jobs that left under the rules of a new configuration, as after a restart."""
        for entry in self._accounts[account].leaving.values():
            known = entry.watched
            saved = SavedJob(known.job, entry.is_new, known.group, states=entry.outcomes)
            self._set_watched(account, entry, watch(saved))

    def _rewatch(self, account: str, entry: JobState, watched: WatchedJob) -> None:
        """Replace the description of a selected job, and maybe its rule."""
        before, entry.watched = entry.watched, watched
        if before.job != watched.job:
            self._count_end(account, watched, before.job, watched.job, is_new=entry.is_new)
        if before.rule.collectors != watched.rule.collectors:
            self._hide_unwanted(entry)
            for table in self._job_tables:
                self._show(account, entry, table)
        elif before != watched:
            self._show(account, entry, table_names.JOB)

    def _hide_unwanted(self, entry: JobState) -> None:
        """Stop showing collectors that the rule does not have; their states are kept."""
        for name, outcome in entry.outcomes.items():
            if name not in entry.watched.rule.collectors:
                entry.outcomes[name] = outcome.hidden()

    def reselect(self, account: str, watched: WatchedJob) -> None:
        """Select a job again that was only missing from a listing. It continues where it was."""
        state = self._accounts[account]
        if watched.job.id in state.jobs:
            return
        self._enter(account, watched)
        state.jobs = dict(sorted(state.jobs.items()))
        self._show_account(account, table_names.SELECTED_JOBS)

    def lose(self, account: str, job_id: str, at: float) -> None:
        """Job_Get does not find a job. It is polled no more, and `settle_lost` decides.

        `at`: seconds of the event loop.
        """
        state = self._accounts[account]
        if job_id in state.jobs:
            self._leave(account, job_id)
            self._show_account(account, table_names.SELECTED_JOBS)
        entry = state.leaving[job_id]
        entry.lost_at = at
        self._forget_own(account, entry.watched, {})

    def settle_lost(
        self, account: str, ended: Iterable[WatchedJob], began: float, now: float
    ) -> None:
        """Forget the jobs that were lost before a listing began, and that it lacks.

        `ended`: jobs that it shows as over; those go on. `began`: seconds of the event loop.
        """
        shown = {watched.job.id for watched in ended}
        for job_id, entry in list(self._accounts[account].leaving.items()):
            if entry.lost_at is None or entry.lost_at >= began:
                continue
            if job_id in shown:
                entry.lost_at = None
            else:
                self.forget_leaving(account, job_id, now, is_gone=True)

    def _leave(self, account: str, job_id: str) -> None:
        """Move a job out of the selection. It is read on for what it did last; counters stay."""
        state = self._accounts[account]
        entry = state.leaving[job_id] = state.jobs.pop(job_id)
        watched = entry.watched
        entry.changed_at, entry.looks, entry.lost_at = None, 0, None
        self.history.forget(account, job_id)
        for table in self._job_tables:
            if watched.group is None:
                self._exposition.remove(table, identity_of(account, watched.owner))
            else:
                self._groups.put((account, watched.owner, table), job_id, None)
        if watched.group is None:
            return
        state.members[watched.owner] -= 1
        if not state.members[watched.owner]:
            del state.members[watched.owner]
            self._totals.set_has_jobs(account, watched.owner, has_jobs=False)

    def forget_leaving(self, account: str, job_id: str, now: float, *, is_gone: bool) -> None:
        """Forget a job that left, after its last reading. `is_gone`: it does not exist any more.

        Should it be listed all the same, it is not new.
        """
        state = self._accounts[account]
        entry = state.leaving.pop(job_id, None)
        if entry is None:
            return
        job = entry.watched.job
        if is_gone:
            self._count_end(account, entry.watched, job, None, is_new=False)
        name = Job(job.id, creation_time=job.creation_time)  # all that tells it from another
        changes: dict[str, SavedJob | None] = {job_id: SavedJob(name, False, left_at=now)}
        state.left[job_id, unix_time(job.creation_time)] = None
        if len(state.left) > REMEMBERED:
            (oldest, _), _ = state.left.popitem(last=False)
            if state.entry(oldest) is None:
                changes.setdefault(oldest, None)
        self._forget_own(account, entry.watched, changes)

    def _forget_own(
        self, account: str, watched: WatchedJob, jobs: Mapping[str, SavedJob | None]
    ) -> None:
        """Forget what a job counted for itself; what it counted for its group stays."""
        if watched.group is None:
            self._totals.forget(account, watched.owner, jobs)
        else:
            self._totals.count(Changes(account, jobs=jobs))

    def forget_groups(self, account: str, kept_for: Callable[[str], float], now: float) -> None:
        """Forget each group that had no job for `kept_for(name)` seconds.

        0: no rule makes the group any more. Its leaving jobs count for the account alone.
        """
        state = self._accounts[account]
        for entry in state.leaving.values():
            watched = entry.watched
            if watched.group is not None and not kept_for(watched.group):
                without = msgspec.structs.replace(watched, group=None)
                self._set_watched(account, entry, without)
        living = state.living_groups
        unknown = [name for name, seen_at in state.groups.items() if seen_at is None]
        seen = dict.fromkeys((*living, *unknown), now)
        state.groups |= seen
        for name, seen_at in list(state.groups.items()):
            if name not in living and now - (seen_at or 0.0) >= kept_for(name):
                seen.pop(name, None)
                self.forget_group(account, name)
        self._totals.save(Changes(account, groups=seen))

    def forget_group(self, account: str, name: str) -> None:
        """Forget a group that has no jobs; in the state file at once."""
        del self._accounts[account].groups[name]
        self._totals.forget(account, ("job_group", name), {})
        self._totals.save(Changes(account, forgotten=(("job_group", name),)))

    def forget_pool_nodes(self, account: str) -> None:
        """Node counts are not read any more."""
        self._accounts[account].outcomes.pop(POOL_NODES, None)
        self._show_account(account, table_names.POOL_NODES, table_names.ACCOUNT_HEALTH)

    def leave_out_command_lines(self, account: str) -> None:
        """Forget the command lines of known failures, also in the state file."""
        changed = self._failures.leave_out_command_lines(account)
        self._totals.count(Changes(account, failures=changed))

    def put_pool_nodes(self, account: str, snapshot: Any, now: float) -> None:
        """Node counts were read."""
        self._accounts[account].outcomes[POOL_NODES] = Outcome(snapshot, None, now)
        self._account_polled(account, None, table_names.POOL_NODES)

    def put_reading(
        self,
        account: str,
        job: Job,
        collector: str,
        reading: Any,
        made_from: Any,
        now: float,
        read_at: float | None = None,
    ) -> Folded[Any] | None:
        """Fold what a poll read of a job into its state, and count what happened.

        `made_from`: the state that the reading was made from. `read_at`: when the reading ended, in
        Unix seconds of the service. Returns the result of the fold. None: the reading is void,
        because the job is gone or another one, or its state has changed since.
        """
        state, entry = self._accounts[account], self._entry(account, job)
        if entry is None or entry.outcome(collector).state is not made_from:
            return None
        folded: Folded[Any] = self._collectors[collector].fold(
            made_from, reading, now, entry.is_new
        )
        events, recent = state.recent.take(
            job, collector, folded.events, now if read_at is None else read_at
        )
        folded = replace(folded, events=events)
        outcome, watched = Outcome(folded.state, None, now), entry.watched
        is_wanted = collector in watched.rule.collectors
        entry.outcomes[collector] = outcome if is_wanted else outcome.hidden()
        is_shown = is_wanted and state.jobs.get(job.id) is entry
        if is_shown:
            if watched.group is None:
                self._exposition.put(collector, identity_of(account, watched.owner), folded.state)
            else:
                self._groups.put((account, watched.owner, collector), job.id, folded.state)
            self._show_health(account, job.id)
            self._note_refusal(account, None)
            self.history.add(account, job.id, folded.points, now)
        # With what has such labels, also if another poll has learned them and goes on.
        changes = Changes(account, spellings=state.spellings.take_new())
        if self._totals.is_saved:
            saved = SavedJob(watched.job, entry.is_new, watched.group)
            changes = replace(
                changes,
                jobs={job.id: saved},
                folded={(job.id, collector): folded},
                recent=recent,
            )
        # What failed before the job was watched is not logged.
        is_logged = entry.is_new or made_from is not None
        self._count(
            *(changes, watched, collector, folded.events),
            is_logged=is_logged,
            has_own=is_shown
            or watched.group is not None
            or (
                state.leaving.get(job.id) is entry
                and self._totals.has(account, watched.owner, collector)
            ),
        )
        return folded

    def confirm(self, account: str, job_id: str, collector: str, now: float) -> None:
        """Confirm the last state without a request, because it cannot change any more."""
        entry = self._accounts[account].jobs[job_id]
        confirmed = msgspec.structs.replace(entry.outcome(collector), succeeded_at=now)
        entry.outcomes[collector] = confirmed
        self._show_health(account, job_id)

    def fail(
        self,
        account: str,
        collector: str,
        job: Job | None,
        error: PollError,
        *,
        since: float,
        stale: bool,
    ) -> None:
        """A poll failed. `job`: None: one of the account itself.

        `since`: when the first of the failed polls began, in seconds of the event loop. `stale`:
        it failed for so long that the last values are dropped.
        """
        state = self._accounts[account]
        entry = None if job is None else self._entry(account, job)
        outcomes = state.outcomes if entry is None else entry.outcomes
        if job is not None and (entry is None or state.jobs.get(job.id) is not entry):
            return
        before = outcomes.get(collector, NOT_POLLED)
        outcomes[collector] = msgspec.structs.replace(
            before, error=error, failing_since=since, is_stale=before.is_stale or stale
        )
        if entry is not None:
            self._show(account, entry, collector)
            self._show_health(account, entry.watched.job.id)
            self._note_refusal(account, error)
            return
        if stale and collector == JOBS:
            for each in state.jobs.values():
                self._show(account, each, table_names.JOB)
        table = table_names.SELECTED_JOBS if collector == JOBS else table_names.POOL_NODES
        self._account_polled(account, error, table)

    def flush(self) -> None:
        """Show what has changed in groups and accounts, or was read, or was left out."""
        self._groups.flush()
        self._totals.flush()
        for table, identity in self._exposition.waiting():
            self._show_again(table, identity)

    def _show_again(self, table: str, identity: Identity) -> None:
        account = identity[0][1]
        owner: Owner = identity[1] if len(identity) > 1 else None
        if table in ACCOUNT_TABLES:
            self._show_account(account, table)
        elif table not in self._job_tables:
            self._totals.show_again(account, owner)
        elif owner is not None and owner[0] == "job_group":
            self._groups.show_again((account, owner, table))
        elif owner is not None and owner[1] in self._accounts[account].jobs:
            self._show(account, self._accounts[account].jobs[owner[1]], table)

    def _entry(self, account: str, job: Job) -> JobState | None:
        """What is known of a job, selected or leaving; None where it is another one by now."""
        entry = self._accounts[account].entry(job.id)
        return entry if entry is not None and entry.watched.is_same_job(job) else None

    def _show(self, account: str, entry: JobState, table: str) -> None:
        """Show what there is to show of a selected job in a table; a group's with `flush`."""
        watched = entry.watched
        if table == table_names.JOB_HEALTH:
            self._show_health(account, watched.job.id)
        elif table != table_names.JOB:
            shown = entry.outcome(table).shown
            self._put(account, watched, table, shown)
            if shown is None and watched.group is None:
                self._totals.hide(account, watched.owner, table)
        else:
            is_shown = self.outcome(account, JOBS).shown is not None
            self._put(account, watched, table, watched if is_shown else None)

    def _show_health(self, account: str, job_id: str) -> None:
        """Show how the polls of a selected job went, by the collectors of its rule."""
        entry = self._accounts[account].jobs[job_id]
        health: dict[str, Health] = {
            name: (outcome.error is None, outcome.succeeded_at)
            for name, outcome in sorted(entry.outcomes.items())
            if name in entry.watched.rule.collectors
            and (outcome.error is not None or outcome.succeeded_at is not None)
        }
        self._put(account, entry.watched, table_names.JOB_HEALTH, health or None)

    def _put(self, account: str, watched: WatchedJob, table: str, snapshot: Any) -> None:
        """Show a snapshot of a job in a table; None: nothing."""
        owner = watched.owner
        if watched.group is not None:
            self._groups.put((account, owner, table), watched.job.id, snapshot)
            return  # what a group has counted outlives its jobs
        identity = identity_of(account, owner)
        if snapshot is not None:
            self._exposition.put(table, identity, snapshot)
        else:
            self._exposition.remove(table, identity)

    def _show_account(self, account: str, *tables: str) -> None:
        """Show what there is to show of the account itself in these tables."""
        identity = identity_of(account)
        for table in tables:
            snapshot = self._account_snapshot(account, table)
            if snapshot is None:
                self._exposition.remove(table, identity)
            else:
                self._exposition.put(table, identity, snapshot)

    def _account_snapshot(self, account: str, table: str) -> Any:
        state = self._accounts[account]
        if table == table_names.ACCOUNT_HEALTH:
            return state if state.outcomes else None
        if table == table_names.POOL_NODES:
            return self.outcome(account, POOL_NODES).shown
        selected = self.outcome(account, JOBS).shown
        jobs = tuple([entry.watched for entry in state.jobs.values()])
        return replace(selected, jobs=jobs) if selected is not None else None

    def _account_polled(self, account: str, error: PollError | None, table: str) -> None:
        state = self._accounts[account]
        state.note_refusal(error)
        self._totals.count(Changes(account, spellings=state.spellings.take_new()))
        self._show_account(account, table, table_names.ACCOUNT_HEALTH)

    def _note_refusal(self, account: str, error: PollError | None) -> None:
        state = self._accounts[account]
        before = state.problem
        state.note_refusal(error)
        after = state.problem
        if (before and before.cause) != (after and after.cause):
            self._show_account(account, table_names.ACCOUNT_HEALTH)

    def _count(
        self,
        changes: Changes,
        watched: WatchedJob,
        collector: str,
        events: Events,
        *,
        is_logged: bool,
        has_own: bool,
    ) -> None:
        """Count what happened for the account, and for the job or its group where `has_own`."""
        account, job_id = changes.account, watched.job.id
        whose = {"account": account, "job_id": job_id, "job_group": watched.group}
        failures = [msgspec.structs.replace(each, **whose) for each in events.failures]
        new_failures = self._failures.add(account, failures, is_logged=is_logged)
        counted: list[tuple[Owner, str, Increments]] = []
        if has_own:
            counted.append((watched.owner, collector, events.increments))
        if of_account := self._of_account(collector, events):
            counted.append((None, ACCOUNT, of_account))
        if events.observations:
            observer = watched.owner if watched.group is not None else None
            counted.append((observer, table_names.HISTOGRAMS, events.observations))
        self._totals.count(replace(changes, failures=new_failures), counted)

    def _of_account(self, collector: str, events: Events) -> Increments:
        """What the account counts of a job's increments."""
        rows = self._collectors[collector].account
        return total(
            [
                ((rows[name].row.name, tuple([labels[i] for i in rows[name].labels])), amount)
                for (name, labels), amount in events.increments.items()
                if amount and name in rows
            ]
        )
