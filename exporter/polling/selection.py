"""Which jobs are watched: the rules of the configuration applied to the jobs of an account."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from exporter import config
from exporter.batch import odata
from exporter.batch.models import Job, unix_time

WATCHED_TASKS = "watched_tasks"
"""The collector that a rule has when it names tasks."""


@dataclass(frozen=True)
class Rule:
    """A job rule with its defaults filled in.

    `interval`: seconds; `pattern`: for the whole id; `collect`: names of the collectors;
    `tasks`: ids of those that are watched one by one.
    """

    id: str | None
    pattern: re.Pattern[str] | None
    states: frozenset[str] | None
    completed_for: float | None
    metadata: frozenset[tuple[str, str]]
    collect: tuple[str, ...]
    interval: float
    stale_after: int
    resync_interval: float
    idle_interval: float
    group: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    metadata_labels: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def matches(self, job: Job, now: float) -> bool:
        """Whether this rule wants the job, at the time `now`."""
        return self._wants_state(job, now) and self.names(job)

    def names(self, job: Job) -> bool:
        """Whether the job is one of this rule's by its id and metadata, in whatever state."""
        if self.id is not None:
            if job.id.lower() != self.id.lower():
                return False
        elif self.pattern is not None and self.pattern.fullmatch(job.id) is None:
            return False
        carried = {(item.name, item.value) for item in job.metadata or ()}
        return self.metadata <= carried

    def _wants_state(self, job: Job, now: float) -> bool:
        state = (job.state or "").lower()
        if self.states is None or state in self.states:
            return True
        if self.completed_for is None or state != "completed":
            return False
        ended = unix_time(_end_time(job))
        return ended is not None and now - ended < self.completed_for


@dataclass(frozen=True, slots=True)
class WatchedJob:
    """A job that a rule selected, with what the rule wants of it.

    `group`: whose series the job's are part of; None: it has its own.
    `labels`: names and values of further labels of `azure_batch_job_info`.
    """

    job: Job
    rule: Rule
    group: str | None = None
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Scope:
    """Which jobs of an account are watched: those that a rule wants, and at most so many.

    `owns`: whether a job, by its id, is left to this process.
    """

    rules: tuple[Rule, ...]
    max_jobs: int
    owns: Callable[[str], bool] = lambda _: True


def watch(job: Job, rule: Rule) -> WatchedJob:
    """A job under the rule that matches it, with its group and labels filled in."""
    metadata = {item.name or "": item.value or "" for item in job.metadata or ()}
    given = {config.label_name(name): metadata.get(name, "") for name in rule.metadata_labels}
    labels = tuple(sorted({**given, **dict(rule.labels)}.items()))
    if rule.group is None:
        return WatchedJob(job, rule, None, labels)
    match = rule.pattern.fullmatch(job.id) if rule.pattern is not None else None
    values = {name: value or "" for name, value in (match.groupdict() if match else {}).items()}
    values |= {f"metadata.{name}": value for name, value in metadata.items()}
    values["pool_id"] = job.pool_id
    group = config.PLACEHOLDER.sub(lambda found: values.get(found[1], ""), rule.group)
    # A label without a value is no label: such jobs still belong together.
    return WatchedJob(job, rule, group or "none", labels)


def resolve(rule: config.JobRule, defaults: config.Defaults) -> Rule:
    """A configured rule with the defaults filled in."""
    collect: tuple[str, ...] = rule.collect if rule.collect is not None else defaults.collect
    any_state = rule.id is not None and "states" not in rule.model_fields_set
    return Rule(
        id=rule.id,
        pattern=re.compile(rule.id_regex) if rule.id_regex is not None else None,
        states=None if any_state else frozenset(rule.states),
        completed_for=rule.completed_for,
        metadata=frozenset(rule.metadata.items()),
        collect=(*collect, WATCHED_TASKS) if rule.tasks else collect,
        interval=rule.interval if rule.interval is not None else defaults.interval,
        stale_after=rule.stale_after if rule.stale_after is not None else defaults.stale_after,
        resync_interval=(
            rule.resync_interval if rule.resync_interval is not None else defaults.resync_interval
        ),
        idle_interval=(
            rule.idle_interval if rule.idle_interval is not None else defaults.idle_interval
        ),
        group=rule.group,
        labels=tuple(sorted(rule.labels.items())),
        metadata_labels=rule.metadata_labels,
        tasks=rule.tasks,
    )


def select(rules: Iterable[Rule], jobs: Iterable[Job], now: float) -> tuple[WatchedJob, ...]:
    """The jobs that a rule wants, each with the first rule that does, in the order of their ids.

    A job that stands twice (listings are no snapshots) is taken once, as it came last.
    """
    rules = tuple(rules)
    latest = {job.id.lower(): job for job in jobs}
    watched = (
        next((watch(job, rule) for rule in rules if rule.matches(job, now)), None)
        for job in latest.values()
    )
    return tuple(sorted(filter(None, watched), key=lambda found: found.job.id))


def needs_listing(rules: Iterable[Rule]) -> bool:
    """Whether jobs must be discovered: rules with an exact id only do not need it."""
    return any(rule.pattern is not None for rule in rules)


def listing_filter(rules: Iterable[Rule], now: float) -> str:
    """The $filter for Job_List that leaves out what no rule with a pattern can want.

    Completed jobs stay listed until somebody deletes them: without a filter the list grows for
    ever. A job completed at the edge of `completed_for` is listed a little longer, then dropped by
    `Rule.matches`.
    """
    discovering = [rule for rule in rules if rule.pattern is not None]
    states = sorted({state for rule in discovering for state in rule.states or ()})
    terms = [f"state eq {odata.literal(state)}" for state in states]
    windows = [rule.completed_for for rule in discovering if rule.completed_for is not None]
    if windows and "completed" not in states:
        since = dt.datetime.fromtimestamp(now - max(windows), dt.UTC)
        terms.append(
            odata.all_of(("state eq 'completed'", f"stateTransitionTime ge {odata.literal(since)}"))
        )
    return odata.any_of(terms)


def _end_time(job: Job) -> dt.datetime | None:
    ended = job.execution_info.end_time if job.execution_info else None
    return ended or job.state_transition_time
