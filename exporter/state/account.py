"""What is known of one account: its jobs, what their polls came to, and which jobs left."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from exporter.batch.errors import AuthenticationFailed, CredentialError, PollError
from exporter.batch.spellings import Spellings
from exporter.exposition.metric import Identity
from exporter.state.recent import RecentCounts
from exporter.state.watched_job import NOT_POLLED, JobState, Outcome

JOBS = "jobs"
POOL_NODES = "pool_nodes"
"""The collectors of the account itself."""

REMEMBERED = 100_000
"""Jobs that left the selection and are remembered, so that one that comes back is not new."""

Owner = tuple[str, str] | None
"""Whose series: (label name, value) of a job or group; None: the account's own."""


@dataclass
class AccountState:
    """The state of one account.

    `jobs`: the selected jobs by id. `leaving`: jobs that left the selection, or ended before they
    were seen, by id; they are read until nothing of them can change any more.
    `outcomes`: what the polls of the account's own collectors came to.
    `members`: number of selected jobs by group.
    `left`: id and creation time of jobs that left for good, the latest last.
    `listed_at`: when the last complete listing of the jobs began, in Unix seconds of the service.
    `recent`: what was counted lately, by job id.
    `groups`: when a job of each group was seen last, in Unix time; None: unknown.
    `refusal`: the error of the last poll of any job, where the credentials were refused.
    `spellings`: how it spells codes and pool ids.
    """

    jobs: dict[str, JobState] = field(default_factory=dict)
    leaving: dict[str, JobState] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    members: Counter[Owner] = field(default_factory=Counter)
    watched_since: float | None = None
    listed_at: float | None = None
    recent: RecentCounts = field(default_factory=RecentCounts)
    left: OrderedDict[tuple[str, float | None], None] = field(default_factory=OrderedDict)
    groups: dict[str, float | None] = field(default_factory=dict)
    refusal: PollError | None = None
    spellings: Spellings = field(default_factory=Spellings)

    def entry(self, job_id: str) -> JobState | None:
        """What is known of a job, selected or leaving."""
        return self.jobs.get(job_id) or self.leaving.get(job_id)

    @property
    def living_groups(self) -> set[str]:
        """The groups that have jobs, selected or leaving."""
        leaving = {entry.watched.group for entry in self.leaving.values()}
        return {owner[1] for owner in self.members if owner} | (leaving - {None})  # type: ignore[operator]

    @property
    def is_up(self) -> bool | None:
        """Whether the account works as a whole; None while its jobs were never listed."""
        return self.problem is None if JOBS in self.outcomes else None

    @property
    def problem(self) -> PollError | None:
        """What is wrong with the account as a whole."""
        # A failure of one job's poll is no failure of the account, unless the credentials are
        # refused.
        listing = self.outcomes.get(JOBS, NOT_POLLED).error
        nodes = self.outcomes.get(POOL_NODES, NOT_POLLED).error
        return listing or self.refusal or (nodes if nodes and nodes.account_wide else None)

    def note_refusal(self, error: PollError | None) -> None:
        """Take the error of a poll, or None where it succeeded."""
        is_refusal = isinstance(error, AuthenticationFailed | CredentialError)
        self.refusal = error if is_refusal else None


def identity_of(account: str, owner: Owner = None) -> Identity:
    """The labels that identify an owner."""
    return (("account", account), owner) if owner else (("account", account),)
