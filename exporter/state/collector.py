"""What a collector of a job is to the store: how a reading is folded, saved and shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from exporter.exposition.metric import Metric
from exporter.state.counters import CounterRow, Increments
from exporter.state.failures import Failure
from exporter.state.histogram import Histogram
from exporter.state.watched_job import WatchedJob

R = TypeVar("R")
S = TypeVar("S")


@dataclass(frozen=True)
class Events:
    """What happened between two states.

    `increments`: of the job's counters. `observations`: increments of histograms, which belong to
    the group or the account.
    `failures`: new failures; after a first reading, all of them.
    `corrections`: records that a full listing found different from what reading by changes left.
    """

    increments: Increments = field(default_factory=dict)
    observations: Increments = field(default_factory=dict)
    failures: Sequence[Failure] = ()
    corrections: int = 0


@dataclass(frozen=True)
class Folded(Generic[S]):
    """The state after a reading, and what happened since the state before it.

    `is_busy`: whether something of the job waits or runs, as far as the reading shows.
    `is_running`: whether something runs.
    `points`: values for the job's charts, by name; see `exporter.state.history`.
    `records`: the changed records of the state by key; None: deleted. It can be iterated once.
    """

    state: S
    events: Events
    is_busy: bool = False
    is_running: bool = False
    points: Mapping[str, int] = field(default_factory=dict)
    records: Iterable[tuple[tuple[str, ...], Any]] = ()


@dataclass(frozen=True)
class AccountRow:
    """A counter of the whole account that grows with one of the jobs' counters.

    `labels`: which of the job row's labels it keeps, by position.
    """

    row: CounterRow
    labels: tuple[int, ...]


@dataclass(frozen=True)
class JobCollector(Generic[R, S]):
    """Reads one thing of one job.

    `name`: the label value `collector`, and the word in the configuration's `collect`.
    `operation`: the operation of the REST API that `read` calls.
    `read(client, watched, state, now)`: asks the service about a job; raises PollError. `state`: as
    it was folded last, None at first. `now`: Unix seconds.
    `fold(state, reading, now, is_new)`: the new state and what happened; pure. `is_new`: the job
    was created since the account is watched, so that all it did happened since.
    `metrics`: the gauges that a state gives; `counters`: rows of what is counted.
    `account`: counters of the account that grow with those of the jobs, by name of the job's row.
    `dump(state)`, `load(saved, records)`: the state without its records as bytes, and the state
    from both; a record is what `Folded.records` had. `records(state)`: all of them.
    `histograms`: what is observed, for the group or, where there is none, the account.
    `is_settled(state)`: whether nothing of it can change any more in the life of the job, so that
    the service is not asked again.
    `lists`: a poll may cost many pages, so it lets others go first.
    """

    name: str
    operation: str
    read: Callable[[Any, WatchedJob, S | None, float], Awaitable[R]]
    fold: Callable[[S | None, R, float, bool], Folded[S]]
    metrics: tuple[Metric[S], ...]
    dump: Callable[[S], bytes]
    load: Callable[[bytes, Mapping[tuple[str, ...], bytes]], S]
    records: Callable[[S], Iterable[tuple[tuple[str, ...], Any]]] = lambda _: ()
    counters: tuple[CounterRow, ...] = ()
    account: Mapping[str, AccountRow] = field(default_factory=dict)
    histograms: tuple[Histogram, ...] = ()
    is_settled: Callable[[S], bool] = lambda _: False
    lists: bool = False
