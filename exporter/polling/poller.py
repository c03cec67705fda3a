"""The polls of one account. Discovery adds and removes the polls of jobs.

Every error of a poll ends here: it is recorded, and other polls go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

from exporter.batch.client import BatchClient
from exporter.batch.errors import JobGone, PollError
from exporter.batch.models import Job
from exporter.collectors import JOB_COLLECTORS, pool_nodes
from exporter.config import Account, Defaults, Rule
from exporter.config.shard import Shard
from exporter.diagnosis.accounts import diagnose
from exporter.polling.scheduler import Key, Poll, PollObserver, Scheduler
from exporter.polling.selection import discover, metadata_names, select, watch_saved
from exporter.state.account import JOBS, POOL_NODES
from exporter.state.store import Store
from exporter.state.watched_job import NOT_POLLED, JobState, WatchedJob

log = logging.getLogger(__name__)

LAST = "last"
"""The first part of the key of a job's last poll."""


class AccountObserver(PollObserver, Protocol):
    """Is told how the polls of one account go."""

    def poll_done(self, collector: str, seconds: float) -> None:
        """A poll ended, well or not."""

    def corrected(self, collector: str, records: int) -> None:
        """A full listing corrected so many records."""

    def internal_error(self) -> None:
        """A poll ended with an error that nobody foresaw."""

    def polls_saved(self, count: float, reason: str) -> None:
        """`count` polls were not needed."""


class AccountPoller:
    """Polls one account, which the store knows, into it.

    `now`: Unix time. `requests_at`: when the last request was sent, or the last pause of them ends,
    in seconds of the event loop. `scheduler`: how the polls are planned; `run` makes a new one.
    """

    def __init__(
        self,
        account: Account,
        defaults: Defaults,
        shard: Shard,
        api: BatchClient,
        store: Store,
        observer: AccountObserver,
        now: Callable[[], float],
        requests_at: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._account = account
        self._defaults = defaults
        self._shard = shard
        self._name = account.name
        self._api = api
        self._store = store
        self._observer = observer
        self._now = now
        self._requests_at = requests_at
        self._busy_at: dict[str, float] = {}
        self._account_error: str | None = None
        self._has_dropped = False
        self._prepare()

    def _prepare(self) -> None:
        # Other accounts, and other shards on this machine, poll at other moments.
        name = f"{self._name} {self._shard}"
        self.scheduler = Scheduler(self._account.max_concurrency, self._observer, name)

    @property
    def is_ready(self) -> bool:
        """Whether a first round is over, however it went."""
        return self.scheduler.first_round_done

    @property
    def stuck_for(self) -> float:
        """Seconds during which polls were due, but none began or ended and no request was sent."""
        idle_since = self.scheduler.idle_since
        if idle_since is None:
            return 0.0
        now = asyncio.get_running_loop().time()
        return max(0.0, now - max(idle_since, self._requests_at()))

    async def run(self) -> None:
        """Poll until cancelled; may be called again after an error."""
        self._prepare()
        self._add_account_polls()
        self._add_polls()  # of jobs that are known from before
        await self.scheduler.run()

    async def run_once(self) -> None:
        """Poll everything once."""
        self._add_account_polls()
        await self.scheduler.run_once()

    def _add_account_polls(self) -> None:
        if self.scheduler.polls():
            return
        # Whatever was listed before: other rules may want other jobs.
        self.scheduler.add(Poll((JOBS,), self._account.discovery_interval, self._poll_jobs))
        if self._reads_pool_nodes:
            self._add_poll(Poll((POOL_NODES,), self._defaults.interval, self._poll_pool_nodes))

    @property
    def _reads_pool_nodes(self) -> bool:
        # Nodes are the account's, not a job's: one shard reads them for all.
        return self._account.pool_nodes and self._shard.index == 0

    def apply_rules(self) -> None:
        """Apply the configuration to what is known, without a request."""
        account, rules = self._name, self._account.jobs
        known, names = self._store.outcome(account, JOBS).state, metadata_names(rules)
        # Only the next listing has the metadata that was not kept.
        if known is not None and names <= known.metadata_names:
            found = [entry.watched.job for entry in self._store.jobs(account).values()]
            selected = select(rules, found, self._now())[: self._account.max_jobs]
            self._store.select_anew(account, replace(known, jobs=selected, metadata_names=names))
        self._store.watch_leaving(account, partial(watch_saved, rules))
        self._forget_groups()
        if not any(rule.command_lines for rule in rules):
            self._store.leave_out_command_lines(account)
        if not self._reads_pool_nodes:
            self._store.forget_pool_nodes(account)

    def _forget_groups(self) -> None:
        def kept_for(name: str) -> float:
            made_by = (rule for rule in self._account.jobs if rule.can_make(name))
            return max((rule.keep_groups_for for rule in made_by), default=0.0)

        self._store.forget_groups(self._name, kept_for, self._now())

    async def _poll_jobs(self, key: Key) -> None:
        account, interval = self._name, self._account.discovery_interval
        watched = [entry.watched for entry in self._store.jobs(account).values()]
        # After a restart saved jobs are leaving. At `max_jobs` they, too, come before new ones.
        leaving = [entry.watched for entry in self._store.leaving(account).values()]
        known = {each.job.id.lower(): each.job for each in (*leaving, *watched)}
        with self._recorded(key, None, interval, self._defaults.stale_after):
            started = self._now()
            api = self._until(interval)
            selected = await discover(api, self._account, self._shard, known, started)
            if selected.dropped and not self._has_dropped:
                text = "max_jobs (%d) is reached: %d more jobs are left out"
                most, dropped = self._account.max_jobs, selected.dropped
                log.warning(text, most, dropped, extra=self._context())
            self._has_dropped = selected.dropped > 0
            # Only with the first answer is it known what the service's clock says.
            asked_at = started + self._api.clock_offset
            self._store.select(account, selected, self._now(), asked_at)
            self._forget_groups()
            self._follow_selection(watched)

    def _follow_selection(self, before: Iterable[WatchedJob]) -> None:
        """Poll the jobs that are selected now, and no others. `before`: those that were."""
        for watched in before:
            entry = self._store.jobs(self._name).get(watched.job.id)
            if entry is None or not watched.is_same_job(entry.watched.job):
                self._remove_polls(watched.job.id)
            elif entry.watched.job != watched.job:
                self._note_activity(watched.job.id)
        self._add_polls()
        self._add_last_polls()

    def _add_polls(self) -> None:
        polls, run = self.scheduler.polls(), self._poll_job
        for job_id, entry in self._store.jobs(self._name).items():
            rule = entry.watched.rule
            for collector in JOB_COLLECTORS:
                key = (collector, job_id)
                wanted = collector in rule.collectors
                known = polls.get(key)
                if known is not None and (not wanted or known.interval != rule.interval):
                    # The job came under another rule.
                    self.scheduler.remove(key)
                    known = None
                if wanted and known is None:
                    defer = rule.interval / 2 if JOB_COLLECTORS[collector].lists else 0.0
                    self._add_poll(Poll(key, rule.interval, run, defer))

    def _add_poll(self, poll: Poll) -> None:
        # After a reload, or under another rule, a poll that succeeded before need not run at once.
        outcome = self._store.outcome(self._name, *poll.key)
        self.scheduler.add(poll, at_once=outcome.succeeded_at is None)

    def _add_last_polls(self) -> None:
        """Read a job that left the selection once more: what it did last is not lost."""
        polls = self.scheduler.polls()
        for job_id, entry in self._store.leaving(self._name).items():
            key = (LAST, job_id)
            if key not in polls:
                run = partial(self._poll_last, entry)
                self.scheduler.add(Poll(key, entry.watched.rule.interval, run))

    async def _poll_last(self, entry: JobState, key: Key) -> None:
        account, (_, job_id) = self._name, key
        if self._store.leaving(account).get(job_id) is entry:
            is_gone = False
            try:
                await self._read_last(entry)
            except JobGone:
                is_gone = True
            except PollError as error:
                log.debug("last poll failed: %s", error, extra=self._context(job_id))
            except Exception:
                log.exception("unexpected error in a poll", extra=self._context(job_id))
                self._observer.internal_error()
            if self._store.leaving(account).get(job_id) is entry:
                self._store.forget_leaving(account, job_id, self._now(), is_gone=is_gone)
        self.scheduler.remove(key)

    async def _read_last(self, entry: JobState) -> None:
        account, watched = self._name, entry.watched
        # Task counts have no creation time: check that the id still belongs to this job.
        api = self._until(watched.rule.interval)
        current = await api.get_job(watched.job.id)
        if not watched.is_same_job(current):
            raise JobGone(404)
        # It may only have been missing: pages of a listing are no snapshot.
        selected = select(self._account.jobs, [current], self._now())
        if selected and len(self._store.jobs(account)) < self._account.max_jobs:
            self._store.reselect(account, selected[0])
            self._add_polls()
            return
        # Also what another rule read of it before.
        for name in dict.fromkeys((*watched.rule.collectors, *entry.outcomes)):
            kind, state = JOB_COLLECTORS[name], entry.outcome(name).state
            if state is None or not kind.is_settled(state):
                reading = await kind.read(api, watched, state, self._now())
                job, now = watched.job, self._now()
                self._store.put_reading(account, job, name, reading, state, now)

    def _remove_polls(self, job_id: str) -> None:
        for collector in JOB_COLLECTORS:
            self.scheduler.remove((collector, job_id))
        self._busy_at.pop(job_id, None)

    async def _poll_pool_nodes(self, key: Key) -> None:
        interval = self._defaults.interval
        with self._recorded(key, None, interval, self._defaults.stale_after):
            snapshot = await pool_nodes.read(self._until(interval))
            self._store.put_pool_nodes(self._name, snapshot, self._now())

    async def _poll_job(self, key: Key) -> float | None:
        """Poll one collector of a job; returns the time to its next poll; None: an interval."""
        account, (collector, job_id) = self._name, key
        entry = self._store.jobs(account).get(job_id)
        if entry is None:
            return None
        watched, outcome = entry.watched, entry.outcomes.get(collector, NOT_POLLED)
        job, rule, kind = watched.job, watched.rule, JOB_COLLECTORS[collector]
        if outcome.shown is not None and kind.is_settled(outcome.shown):
            # Discovery has just confirmed that it is still the same job.
            self._store.confirm(account, job_id, collector, self._now())
            self._observer.polls_saved(1, "settled")
            return None
        with self._recorded(key, job, rule.interval, rule.stale_after):
            state = outcome.state
            try:
                reading = await kind.read(self._until(rule.interval), watched, state, self._now())
            except JobGone:
                self._forget(job)
                return None
            folded = self._store.put_reading(account, job, collector, reading, state, self._now())
            if folded is not None:
                self._observer.corrected(collector, folded.events.corrections)
                # Tasks that still wait when their job is over wait for ever.
                is_over = (job.state or "").lower() == "completed"
                if any(folded.events.increments.values()) or (folded.is_busy and not is_over):
                    self._note_activity(job_id)
        failed = entry.outcomes.get(collector, NOT_POLLED).error is not None
        if failed or key not in self.scheduler:
            return None  # it is to be read again soon, or the job is gone
        return self._idle_wait(job_id, rule)

    def _note_activity(self, job_id: str) -> None:
        """Something of the job waits, runs or has changed: it is polled as often as others."""
        self._busy_at[job_id] = asyncio.get_running_loop().time()
        for collector in JOB_COLLECTORS:
            self.scheduler.hasten((collector, job_id))

    def _idle_wait(self, job_id: str, rule: Rule) -> float | None:
        """Seconds to the next poll of a job of which nothing happens; None: an interval."""
        now = asyncio.get_running_loop().time()
        idle_for = now - self._busy_at.setdefault(job_id, now)
        if rule.idle_interval <= rule.interval or idle_for < rule.idle_interval:
            return None
        self._observer.polls_saved(rule.idle_interval // rule.interval - 1, "idle")
        return rule.idle_interval

    def _until(self, interval: float) -> BatchClient:
        """The client for one poll: what fails is tried again, but not past the poll's interval."""
        return self._api.until(asyncio.get_running_loop().time() + interval)

    def _forget(self, job: Job) -> None:
        entry = self._store.jobs(self._name).get(job.id)
        if entry is not None and entry.watched.is_same_job(job):
            log.info("job is gone", extra=self._context(job.id))
            self._store.remove_job(self._name, job.id)
            self._remove_polls(job.id)

    @contextmanager
    def _recorded(
        self, key: Key, job: Job | None, interval: float, stale_after: int
    ) -> Iterator[None]:
        """The edge of a poll: records how it went; no error comes out of it."""
        collector = key[0]
        loop = asyncio.get_running_loop()
        started = loop.time()
        before = self._store.outcome(self._name, collector, job.id if job else None)
        error: PollError | None = None
        try:
            yield
        except PollError as problem:
            error = problem
            # The error is kept. Its traceback would keep whole answers in memory.
            error.__traceback__ = error.__cause__ = error.__context__ = None
        except Exception as problem:
            log.exception("unexpected error in a poll", extra=self._context(*key[1:]))
            self._observer.internal_error()
            error = PollError(f"{type(problem).__name__}: {problem}")
        finally:
            self._observer.poll_done(collector, loop.time() - started)
        if error is None:
            self._log_recovery(collector, job, before.error)
        elif key in self.scheduler:  # else it was removed meanwhile
            diagnose(self._account, error)
            since = started if before.failing_since is None else before.failing_since
            # Half a turn of grace: a poll is never exactly on time.
            failed = loop.time() - since + interval * 1.5
            stale = failed >= stale_after * interval
            account = self._name
            self._store.fail(account, collector, job, error, since=since, stale=stale)
            self._log_failure(collector, job, before.error, error)

    def _context(self, job_id: str | None = None, collector: str | None = None) -> dict[str, str]:
        given = {"account": self._name, "job_id": job_id, "collector": collector}
        return {name: value for name, value in given.items() if value is not None}

    def _log_failure(
        self, collector: str, job: Job | None, before: PollError | None, error: PollError
    ) -> None:
        """One line when something goes down; an account's trouble is one line, not one a job."""
        context = self._context(job.id if job else None, collector)
        if error.cure:
            context |= {"cause": error.cause, "cure": error.cure}
        if before is not None and before.reason == error.reason:
            pass  # it is in the log already
        elif not error.account_wide:
            log.warning("poll failed: %s", error, extra=context)
        elif self._account_error != error.reason:
            self._account_error = error.reason
            log.warning("account cannot be polled: %s", error, extra=context)
        log.debug("poll failed: %s", error, extra=context)

    def _log_recovery(self, collector: str, job: Job | None, before: PollError | None) -> None:
        # One job that answers is no proof, and would fill the log while every other one fails.
        if self._account_error is not None and job is None:
            self._account_error = None
            log.info("account can be polled again", extra=self._context())
        if before is not None and not before.account_wide:
            context = self._context(job.id if job else None, collector)
            log.info("poll succeeds again", extra=context)
