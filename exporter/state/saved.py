"""What is saved of an account, and what a poll changes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exporter.batch.models import Job
from exporter.batch.spellings import Spelling
from exporter.exposition.metric import Key
from exporter.state.account import Owner
from exporter.state.collector import Folded
from exporter.state.counters import Counters
from exporter.state.failures import Failure
from exporter.state.recent import Counted

CounterChange = tuple[Owner, str, Counters, frozenset[Key]]
"""Owner, collector, the counters, and the keys of those that changed."""


@dataclass(frozen=True)
class SavedJob:
    """A job as it was known.

    `states`: by collector, as they were last folded.
    `group`: the group that it was part of.
    `left_at`: Unix time at which it left the selection; its states are of no use any more.
    """

    job: Job
    is_new: bool
    group: str | None = None
    left_at: float | None = None
    states: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Changes:
    """What one poll changed, written together or not at all.

    `listed_at`: when a complete listing of the jobs began, in Unix seconds of the service.
    `jobs`: by id; None: forget the job. `folded`: by job id and collector, the states to write.
    `counters`: those that changed. `forgotten`: owners whose counters are gone. `failures`: new
    ones, for people to read. `recent`: what was counted lately, by job id; none: forget it.
    `spellings`: new ones. `groups`: when a job of them was seen last, in Unix time.
    """

    account: str
    watched_since: float | None = None
    listed_at: float | None = None
    jobs: Mapping[str, SavedJob | None] = field(default_factory=dict)
    folded: Mapping[tuple[str, str], Folded[Any]] = field(default_factory=dict)
    counters: tuple[CounterChange, ...] = ()
    forgotten: tuple[Owner, ...] = ()
    failures: Sequence[Failure] = ()
    recent: Mapping[str, Sequence[Counted]] = field(default_factory=dict)
    spellings: tuple[Spelling, ...] = ()
    groups: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return self == Changes(self.account)


@dataclass(frozen=True)
class Saved:
    """All that is known of an account. `groups`: when a job of them was seen last."""

    watched_since: float | None = None
    listed_at: float | None = None
    counters: Mapping[tuple[Owner, str], Counters] = field(default_factory=dict)
    jobs: Mapping[str, SavedJob] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    recent: Mapping[str, Sequence[Counted]] = field(default_factory=dict)
    spellings: tuple[Spelling, ...] = ()
    groups: Mapping[str, float] = field(default_factory=dict)
