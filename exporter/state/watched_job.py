"""The jobs that are watched: each with the rule that selected it, and what its polls came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from exporter.batch.errors import PollError
from exporter.batch.models import Job, may_be_same, unix_time
from exporter.config import Rule


class WatchedJob(msgspec.Struct, frozen=True, gc=False):
    """A job that a rule selected, with what the rule wants of it.

    `group`: the group whose series the job's are part of; None: it has its own.
    `labels`: names and values of further labels of `azure_batch_job_info`.
    """

    job: Job
    rule: Rule
    group: str | None = None
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def owner(self) -> tuple[str, str]:
        """The label of the job's series, as (name, value): its group, or the job itself."""
        return ("job_id", self.job.id) if self.group is None else ("job_group", self.group)

    def is_same_job(self, other: Job) -> bool:
        """Whether an answer is about this job, and not about another one with the same id."""
        return may_be_same(unix_time(self.job.creation_time), unix_time(other.creation_time))


@dataclass(frozen=True)
class SelectedJobs:
    """The jobs that the rules select, in the order of their ids.

    `dropped`: how many more they select, past the limit. `metadata_names`: the metadata that is
    kept of each.
    """

    jobs: tuple[WatchedJob, ...] = ()
    dropped: int = 0
    metadata_names: frozenset[str] = frozenset()


Health = tuple[bool, float | None]
"""How the polls of a collector go: whether the last one succeeded, and when one last did."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What the polls of one collector came to.

    `state`: as it was last folded; None where there is none yet. It is kept while polls fail, so
    that nothing is counted twice afterwards.
    `error`: why the last poll failed; None where it succeeded.
    `succeeded_at`: Unix time of the last good poll.
    `is_stale`: the state is too old to be shown.
    `failing_since`: when the first of the failed polls began, in seconds of the event loop.
    """

    state: Any
    error: PollError | None
    succeeded_at: float | None
    is_stale: bool = False
    failing_since: float | None = None

    @property
    def shown(self) -> Any:
        """The state, or None where it is not to be shown."""
        return None if self.is_stale else self.state

    def hidden(self) -> Outcome:
        """The same state, to go on from and not to be shown."""
        return Outcome(self.state, None, None, is_stale=True)


NOT_POLLED = Outcome(None, None, None)


@dataclass(slots=True)
class JobState:
    """All that is known of one job.

    `is_new`: it was created since the account is watched, so all that it did is counted.
    `outcomes`: by collector; also of collectors that the rule no longer has, which are at rest.
    `changed_at`: when a last poll last saw a change, or first found none, in seconds of the event
    loop. `looks`: last polls in a row that found the job completed and unchanged.
    `lost_at`: when Job_Get did not find it, in seconds of the event loop; the next listing decides.
    """

    watched: WatchedJob
    is_new: bool
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    changed_at: float | None = None
    looks: int = 0
    lost_at: float | None = None

    def outcome(self, collector: str) -> Outcome:
        """What the polls of a collector came to."""
        return self.outcomes.get(collector, NOT_POLLED)
