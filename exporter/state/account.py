"""What is known of one account: its jobs, what their polls came to, and who left."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from exporter.batch.errors import PollError
from exporter.batch.models import Job
from exporter.exposition.metric import Identity
from exporter.state.collector import Folded, JobCollector
from exporter.state.journal import Owner, SavedJob, SavedState
from exporter.state.record import StateRecord
from exporter.state.watched_job import WatchedJob

JOBS = "jobs"
POOL_NODES = "pool_nodes"
"""The collectors of the account itself."""

REMEMBERED = 100_000
"""Jobs that left the selection and are remembered, so that one that comes back is not new."""


class Health(StateRecord, frozen=True, gc=False):
    """The last poll of one collector. `succeeded_at`: Unix time of the last good one."""

    success: bool
    succeeded_at: float | None


@dataclass(frozen=True)
class AccountHealth:
    """The last polls of an account's own collectors, by collector.

    `up`: None until a first poll was finished. `cause`: why it is not up, as a fixed word.
    """

    up: bool | None
    collectors: Mapping[str, Health]
    cause: str | None = None


class Outcome(StateRecord, frozen=True, gc=False):
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


@dataclass(frozen=True, slots=True)
class Leaving:
    """A job that left the selection, as it was known."""

    watched: WatchedJob
    outcomes: Mapping[str, Outcome]
    is_new: bool


@dataclass
class AccountState:
    """The state of one account."""

    jobs: dict[str, WatchedJob] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    job_outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    members: dict[tuple[str, str], dict[str, None]] = field(default_factory=dict)
    """Ids of the jobs of each group; a dictionary, for the order must not depend on hashes."""
    watched_since: float | None = None
    new_jobs: set[str] = field(default_factory=set)
    leaving: dict[str, Leaving] = field(default_factory=dict)
    """Jobs that left the selection and are asked once more, by id."""
    left: OrderedDict[tuple[str, float | None], None] = field(default_factory=OrderedDict)
    refusal: PollError | None = None
    """What the last answer to any poll was, where it was that the credentials are no good."""


def saved(
    job: Job, collector: JobCollector[Any, Any], folded: Folded[Any], *, is_new: bool
) -> SavedJob:
    """A job and the state of one of its collectors, as the journal keeps them."""
    records = {
        msgspec.json.encode(key).decode(): None if record is None else msgspec.json.encode(record)
        for key, record in folded.records
    }
    state = SavedState(collector.dump(folded.state), records)
    return SavedJob(msgspec.json.encode(job), is_new, {collector.name: state})


def load(collector: JobCollector[Any, Any], known: SavedState) -> Any:
    """A collector's state from what was saved of it."""
    records = {
        msgspec.json.decode(key, type=tuple[str, ...]): record
        for key, record in known.records.items()
        if record is not None
    }
    return collector.load(known.state, records)


def health_of(outcomes: Mapping[str, Outcome]) -> Mapping[str, Health]:
    """The last polls of all collectors, by collector."""
    return {name: outcomes[name].health for name in sorted(outcomes)}


def owner_of(watched: WatchedJob) -> tuple[str, str]:
    """The label that owns the job's series, as (name, value): its group, or the job itself."""
    return ("job_id", watched.job.id) if watched.group is None else ("job_group", watched.group)


def identity_of(account: str, owner: Owner = None) -> Identity:
    """The labels that identify an owner; the account itself where it is None."""
    return (("account", account), owner) if owner else (("account", account),)


def is_up_now(state: AccountState) -> bool | None:
    return problem_of(state) is None if JOBS in state.outcomes else None


def problem_of(state: AccountState) -> PollError | None:
    """What concerns the account as a whole."""
    # A failure of one job's poll is no failure of the account, unless it says that the
    # credentials are no good.
    listing = state.outcomes.get(JOBS, NOT_POLLED)
    nodes = state.outcomes.get(POOL_NODES, NOT_POLLED)
    of_nodes = nodes.error if nodes.error is not None and nodes.error.account_wide else None
    return listing.error or state.refusal or of_nodes


def is_same_job(one: Job, other: Job) -> bool:
    """Whether two answers are about the same job and not two of the same id."""
    return one.creation_time == other.creation_time


def is_same_place(one: WatchedJob, other: WatchedJob) -> bool:
    """Whether it is the same job and its series are where they were."""
    return is_same_job(one.job, other.job) and one.group == other.group
