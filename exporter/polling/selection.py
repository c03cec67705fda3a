"""Which jobs are watched: the rules of the configuration applied to the jobs of an account."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterable, Mapping
from functools import partial

import msgspec

from exporter import config
from exporter.batch import odata
from exporter.batch.client import BatchClient
from exporter.batch.models import Job, unix_time
from exporter.collectors import jobs
from exporter.config import Account, Rule
from exporter.config.shard import Shard
from exporter.state.saved import SavedJob
from exporter.state.watched_job import SelectedJobs, WatchedJob


def matches(rule: Rule, job: Job, now: float) -> bool:
    """Whether a rule wants the job, at the time `now`."""
    return _wants_state(rule, job, now) and names(rule, job)


def names(rule: Rule, job: Job) -> bool:
    """Whether the job is one of the rule's by its id and metadata, in whatever state."""
    if rule.id is not None:
        if job.id.lower() != rule.id.lower():
            return False
    elif rule.pattern is not None and rule.pattern.groups(job.id) is None:
        return False
    carried = {(item.name, item.value) for item in job.metadata or ()}
    return rule.metadata.items() <= carried


def _wants_state(rule: Rule, job: Job, now: float) -> bool:
    state = (job.state or "").lower()
    if rule.states is None or state in rule.states:
        return True
    if rule.completed_for is None or state != "completed":
        return False
    ended = unix_time(job.execution_info.end_time) if job.execution_info else None
    ended = unix_time(job.state_transition_time) if ended is None else ended
    return ended is not None and now - ended < rule.completed_for


def watch(job: Job, rule: Rule) -> WatchedJob:
    """A job under the rule that matches it, with its group and labels filled in."""
    metadata = {item.name or "": item.value or "" for item in job.metadata or ()}
    given = {config.label_name(name): metadata.get(name, "") for name in rule.metadata_labels}
    labels = tuple(sorted({**given, **rule.labels}.items()))
    if rule.group is None:
        return WatchedJob(job, rule, None, labels)
    values = dict(rule.pattern.groups(job.id) or {}) if rule.pattern is not None else {}
    values |= {f"metadata.{name}": value for name, value in metadata.items()}
    values["pool_id"] = job.pool_id
    group = config.PLACEHOLDER.sub(lambda found: values.get(found[1], ""), rule.group)
    # A label without a value is no label: such jobs still belong together.
    return WatchedJob(job, rule, group or "none", labels)


def watch_saved(rules: Iterable[Rule], saved: SavedJob) -> WatchedJob:
    """A saved job under the first rule that names it, whatever its state.

    If no rule does, under a temporary rule that reads the same collectors once more.
    """
    found = next((watch(saved.job, rule) for rule in rules if names(rule, saved.job)), None)
    if found is not None:
        return found
    rule = Rule(id=saved.job.id).model_copy(update={"collect": tuple(saved.states)})
    return WatchedJob(saved.job, rule, saved.group)


def metadata_names(rules: Iterable[Rule]) -> frozenset[str]:
    """The metadata that rules name; of a job no other is kept, for it may hold anything."""
    found: set[str] = set()
    for rule in rules:
        named = config.PLACEHOLDER.findall(rule.group or "")
        found |= {*rule.metadata, *rule.metadata_labels}
        found |= {name.removeprefix("metadata.") for name in named if name.startswith("metadata.")}
    return frozenset(found)


def _with_metadata(job: Job, names: frozenset[str]) -> Job:
    if not job.metadata:
        return job
    kept = tuple(item for item in job.metadata if item.name in names)
    return msgspec.structs.replace(job, metadata=kept or None)


def select(rules: Iterable[Rule], jobs: Iterable[Job], now: float) -> tuple[WatchedJob, ...]:
    """The jobs that a rule wants, each with the first rule that does, in the order of their ids.

    A job that is twice in a listing is taken once, as it came last.
    """
    rules = tuple(rules)
    kept = metadata_names(rules)
    selected = []
    for job in {job.id.lower(): job for job in jobs}.values():
        rule = next((rule for rule in rules if matches(rule, job, now)), None)
        if rule is not None:
            selected.append(watch(_with_metadata(job, kept), rule))
    return tuple(sorted(selected, key=lambda watched: watched.job.id))


def ended_jobs(
    rules: Iterable[Rule], jobs: Iterable[Job], selected: Iterable[WatchedJob]
) -> tuple[WatchedJob, ...]:
    """The jobs that are over, or being deleted, that a rule names and does not select."""
    rules = tuple(rules)
    kept = metadata_names(rules)
    known = {watched.job.id.lower() for watched in selected}
    found = []
    for job in {job.id.lower(): job for job in jobs}.values():
        if job.id.lower() not in known and (job.state or "").lower() in ("completed", "deleting"):
            rule = next((rule for rule in rules if names(rule, job)), None)
            if rule is not None:
                found.append(watch(_with_metadata(job, kept), rule))
    return tuple(found)


def listing_filter(
    rules: Iterable[Rule], now: float, ended_since: float | None = None
) -> str | None:
    """The $filter for Job_List that leaves out what no rule with a pattern can want.

    None where no rule has a pattern: nothing needs to be listed. `ended_since`: jobs that ended
    since then, or are being deleted, are listed in any case; None: they are not. Both times are
    Unix seconds.

    Completed jobs stay listed until somebody deletes them: without a filter the list grows for
    ever. A job completed at the edge of `completed_for` is listed a little longer, then dropped by
    `matches`.
    """
    discovering = [rule for rule in rules if rule.pattern is not None]
    if not discovering:
        return None
    states = sorted({state for rule in discovering for state in rule.states or ()})
    terms = [f"state eq {odata.literal(state)}" for state in states]
    windows = [rule.completed_for for rule in discovering if rule.completed_for is not None]
    if windows and "completed" not in states:
        since = dt.datetime.fromtimestamp(now - max(windows), dt.UTC)
        terms.append(f"(state eq 'completed') and (stateTransitionTime ge {odata.literal(since)})")
    if ended_since is not None and "completed" not in states:
        since = dt.datetime.fromtimestamp(ended_since, dt.UTC)
        terms.append(
            f"(state eq 'completed') and (executionInfo/endTime ge {odata.literal(since)})"
        )
        terms += [] if "deleting" in states else ["state eq 'deleting'"]
    return odata.any_of(terms)


OVERLAP = 120.0
"""Seconds before the last listing from which ended jobs are listed again: an index may be late."""


async def discover(
    client: BatchClient,
    account: Account,
    shard: Shard,
    known: Mapping[str, Job],
    now: float,
    listed_at: float | None = None,
) -> tuple[SelectedJobs, tuple[WatchedJob, ...]]:
    """List the jobs that the rules may want, get those they name, and select.

    Returns the selected jobs, and those that ended. `known`: jobs that are watched already, by id
    in lower case. They stay past `max_jobs` too: a series that comes and goes is worse than one
    that never was. `now`: Unix seconds. `listed_at`: when the last listing began, in Unix seconds
    of the service.
    """
    rules, most = account.jobs, account.max_jobs
    named = [rule.id for rule in rules if rule.id is not None]
    owns = partial(shard.owns, account.name)
    ended_since = None if listed_at is None else listed_at - OVERLAP
    found = await jobs.read(client, listing_filter(rules, now, ended_since), named, owns, known)
    await asyncio.sleep(0)  # with 10,000 jobs each step takes some 20 ms: others may go between
    selected = select(rules, found, now)
    await asyncio.sleep(0)
    ended = ended_jobs(rules, found, selected)
    await asyncio.sleep(0)
    dropped = max(0, len(selected) - most)
    if dropped:
        known_first = sorted(selected, key=lambda watched: watched.job.id.lower() not in known)
        selected = tuple(sorted(known_first[:most], key=lambda watched: watched.job.id))
    return SelectedJobs(selected, dropped, metadata_names(rules)), ended
