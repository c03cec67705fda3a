"""The polls of one account. Discovery adds and removes the polls of jobs.

Every error of a poll ends here: it is recorded, and other polls go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from exporter.batch.client import BatchClient
from exporter.batch.errors import JobGone, PollError
from exporter.batch.models import Job
from exporter.batch.service_clock import MAX_SKEW
from exporter.collectors import JOB_COLLECTORS, pool_nodes
from exporter.collectors.jobs import is_completed
from exporter.config import Account, Defaults, Rule
from exporter.config.shard import Shard
from exporter.diagnosis.accounts import diagnose
from exporter.polling.scheduler import Key, Poll, PollObserver, Scheduler
from exporter.polling.selection import discover, metadata_names, names, select, watch_saved
from exporter.state.account import JOBS, POOL_NODES
from exporter.state.collector import Folded
from exporter.state.store import Store
from exporter.state.watched_job import NOT_POLLED, JobState, WatchedJob

log = logging.getLogger(__name__)

LAST = "last"
"""The first part of the key of the polls of a job that left the selection."""

MAX_LAST_INTERVAL = 60.0
"""Seconds between two of them at most: a job that is being deleted is soon gone."""

LOG_AT_MOST_EVERY = 60.0
"""Seconds between two lines of the log that say why an account cannot be polled."""

GIVE_UP_AFTER = 1800.0
"""Seconds without a change after which a job is given up."""

_ON_THE_WAY = ("disabling", "enabling", "terminating", "deleting")
"""States of a job that soon come to another."""


class _Lost(Exception):
    """Job_Get does not find the job."""


def _counts(folded: Folded[Any] | None) -> bool:
    return folded is not None and any(folded.events.increments.values())


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

    def last_polls(self, jobs: int) -> None:
        """So many jobs are still polled for their end."""

    def gave_up(self) -> None:
        """The end of a job was not seen."""


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
        self._account_error: tuple[str, str] | None = None
        self._account_error_at = 0.0
        self._has_dropped = False
        self._doubted_at: float | None = None
        """When the watch began, in seconds of the event loop, if the clocks differed then."""
        if store.accounts[account.name].watched_since is not None:
            api.clock.trust_own()
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
        """Poll everything once; list the jobs again where only that tells whether some are gone."""
        self._add_account_polls()
        await self.scheduler.run_once()
        if any(entry.lost_at is not None for entry in self._store.leaving(self._name).values()):
            await self._poll_jobs((JOBS,))

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
            began, started = asyncio.get_running_loop().time(), self._now()
            api = self._until(interval)
            listed_at = self._store.accounts[account].listed_at
            if listed_at is not None:  # it may lie ahead, if a clock was wrong
                listed_at = min(listed_at, started + self._api.clock.offset_for_changes)
            listing = partial(discover, api, self._account, self._shard, known)
            selected, ended = await listing(started, listed_at)
            if not self._api.clock.is_sure:  # a second answer proves what time it is
                began, started = asyncio.get_running_loop().time(), self._now()
                selected, ended = await listing(started, listed_at)
            if selected.dropped and not self._has_dropped:
                text = "max_jobs (%d) is reached: %d more jobs are left out"
                most, dropped = self._account.max_jobs, selected.dropped
                log.warning(text, most, dropped, extra=self._context())
            self._has_dropped = selected.dropped > 0
            # Only with the first answer is it known what the service's clock says.
            asked_at = started + self._api.clock.offset
            self._doubt_watch(began, asked_at)
            # From an earlier time more is listed; from a later one what ended would be missed.
            listed_at = min(asked_at, started)
            self._store.select(account, selected, self._now(), asked_at, ended, listed_at)
            await asyncio.sleep(0)  # with many jobs each step takes a while: others may go between
            self._store.settle_lost(account, ended, began, self._now())
            self._forget_groups()
            self._follow_selection(watched)

    def _doubt_watch(self, began: float, asked_at: float) -> None:
        """Correct when the watch began, once clocks agree that differed then.

        `began`: when a listing began, in seconds of the event loop; `asked_at`: in Unix seconds of
        the service.
        """
        agree = abs(self._api.clock.offset) < MAX_SKEW
        if not agree and self._store.accounts[self._name].watched_since is None:
            self._doubted_at = began
        elif agree and self._doubted_at is not None:
            self._store.watch_since(self._name, asked_at - (began - self._doubted_at))
            self._doubted_at = None

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
        """Poll jobs that left the selection on, until nothing of them can change any more."""
        for job_id, entry in self._store.leaving(self._name).items():
            if entry.lost_at is None and (key := (LAST, job_id)) not in self.scheduler:
                interval = min(entry.watched.rule.interval, MAX_LAST_INTERVAL)
                # Nothing was read of a job that ended unseen: there may be thousands of these.
                is_unseen = not entry.outcomes
                self.scheduler.add(Poll(key, interval, self._poll_last, in_background=is_unseen))
        self._note_leaving()

    def _note_leaving(self) -> None:
        leaving = self._store.leaving(self._name).values()
        self._observer.last_polls(sum(entry.lost_at is None for entry in leaving))

    async def _poll_last(self, key: Key) -> None:
        account, (_, job_id) = self._name, key
        entry = self._store.leaving(account).get(job_id)
        if entry is not None:
            is_over = is_lost = False
            try:
                is_over = await self._read_last(entry)
            except _Lost:
                is_lost = True
            except PollError as error:
                log.debug("last poll failed: %s", error, extra=self._context(job_id))
                # Its traceback and what was read would keep each other in memory.
                error.__traceback__ = error.__cause__ = error.__context__ = None
            except Exception:
                log.exception("unexpected error in a poll", extra=self._context(job_id))
                self._observer.internal_error()
            if self._store.leaving(account).get(job_id) is not entry:
                pass  # it was selected again, or another job has its id now
            elif is_lost:
                self._store.lose(account, job_id, asyncio.get_running_loop().time())
            elif is_over or self._gives_up(entry):
                self._store.forget_leaving(account, job_id, self._now(), is_gone=False)
        entry = self._store.leaving(account).get(job_id)
        if entry is None or entry.lost_at is not None:
            self.scheduler.remove(key)
        self._note_leaving()

    async def _read_last(self, entry: JobState) -> bool:
        """Read a job that left; returns whether nothing of it can change any more.

        _Lost where it does not exist any more.
        """
        account, watched = self._name, entry.watched
        api = self._until(watched.rule.interval)
        job = watched.job
        if entry.outcomes or not is_completed(job):  # else the listing has just shown it
            current = await self._get_same(api, watched)
            if current is None:
                raise _Lost
            job = current
            self._store.describe_leaving(account, entry, job)
        # It may only have been missing: pages of a listing are no snapshot.
        selected = select(self._account.jobs, [job], self._now())
        if selected and len(self._store.jobs(account)) < self._account.max_jobs:
            self._store.reselect(account, selected[0])
            self._add_polls()
            return False
        results = await self._read_parts(api, entry, job)
        if not is_completed(job):
            entry.looks = 0
            # In a state that no rule wants, a job may still change. Any other is wanted no more.
            may_go_on = not selected and any(names(rule, job) for rule in self._account.jobs)
            is_on_the_way = (job.state or "").lower() in _ON_THE_WAY
            return not is_on_the_way and not (may_go_on and self._is_waited_for(entry))
        entry.looks = 1 if any(map(_counts, results)) else entry.looks + 1
        return self._is_settled(entry, results)

    async def _read_parts(
        self, api: BatchClient, entry: JobState, job: Job
    ) -> list[Folded[Any] | None]:
        """Read a job that left with each of its collectors; one that fails stops no other.

        _Lost where the job does not exist, else PollError where one failed.
        """
        watched = entry.watched
        failure: PollError | None = None
        results: list[Folded[Any] | None] = []
        # Also what another rule read of it before.
        for name in dict.fromkeys((*watched.rule.collectors, *entry.outcomes)):
            kind, state = JOB_COLLECTORS[name], entry.outcome(name).state
            if state is not None and kind.is_settled(state):
                continue
            # A $filter asks an index, which may be late; there may be no later look.
            made_from = None if kind.lists and is_completed(job) else state
            try:
                reading = await kind.read(api, watched, made_from, self._now())
            except PollError as error:
                if isinstance(error, JobGone) and await self._get_same(api, watched) is None:
                    raise _Lost from None
                failure = error
                continue
            now = self._now()
            read_at = now + self._api.clock.offset
            results.append(
                self._store.put_reading(self._name, job, name, reading, state, now, read_at)
            )
        if any(map(_counts, results)):
            entry.changed_at = asyncio.get_running_loop().time()
        if failure is not None:
            raise failure
        return results

    def _is_settled(self, entry: JobState, results: list[Folded[Any] | None]) -> bool:
        """Whether nothing of a completed job can change any more, after it was read."""
        folded = [each for each in results if each is not None]
        if len(folded) < len(results) or any(each.is_running for each in folded):
            return False
        # Tasks that still wait may wait for ever, or the counts are late: look again.
        return entry.looks > 1 or not any(each.is_busy for each in folded)

    def _gives_up(self, entry: JobState) -> bool:
        """Whether the end of a job was waited for long enough."""
        if self._is_waited_for(entry):
            return False
        log.warning(
            "the end of the job was not seen: its counters may lack the last tasks",
            extra=self._context(entry.watched.job.id),
        )
        self._observer.gave_up()
        return True

    def _is_waited_for(self, entry: JobState) -> bool:
        """Whether a job that left changed less than GIVE_UP_AFTER ago."""
        now = asyncio.get_running_loop().time()
        if entry.changed_at is None or not self._store.accounts[self._name].is_up:
            entry.changed_at = now  # what cannot be asked may have changed
        return now - entry.changed_at < GIVE_UP_AFTER

    async def _get_same(self, api: BatchClient, watched: WatchedJob) -> Job | None:
        """The job as it is now; None: it does not exist any more. One 404 is no proof."""
        for _ in range(2):
            with suppress(JobGone):
                job = await api.get_job(watched.job.id)
                return job if watched.is_same_job(job) else None
        return None

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
            api = self._until(rule.interval)
            try:
                reading = await kind.read(api, watched, state, self._now())
            except JobGone:
                current = await self._get_same(api, watched)
                if current is None:
                    self._lose(job)
                    return None
                if (current.state or "").lower() == "deleting":
                    return None  # the next listing moves it out of the selection
                raise
            now = self._now()
            read_at = now + self._api.clock.offset
            folded = self._store.put_reading(account, job, collector, reading, state, now, read_at)
            if folded is not None:
                self._observer.corrected(collector, folded.events.corrections)
                # Tasks that still wait when their job is over wait for ever.
                is_busy = folded.is_busy and not is_completed(job)
                if any(folded.events.increments.values()) or is_busy:
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

    def _lose(self, job: Job) -> None:
        entry = self._store.jobs(self._name).get(job.id)
        if entry is not None and entry.watched.is_same_job(job):
            log.info("job is gone", extra=self._context(job.id))
            self._store.lose(self._name, job.id, asyncio.get_running_loop().time())
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
        if error.trace:
            context["trace"] = error.trace
        kind = (error.reason, error.cause)
        if before is not None and (before.reason, before.cause) == kind:
            pass  # it is in the log already
        elif not error.account_wide:
            log.warning("poll failed: %s", error, extra=context)
        elif self._account_error is None or (
            self._account_error != kind
            and self._now() - self._account_error_at >= LOG_AT_MOST_EVERY
        ):
            self._account_error, self._account_error_at = kind, self._now()
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
