"""The two tasks that a job runs on each node beside its own: what they are called and count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Literal

from exporter.batch.failure_codes import CATEGORIES, UNKNOWN
from exporter.batch.models import SpecialTaskExecutionInfo, unix_time
from exporter.collectors.node_run import RESULTS, Outcome
from exporter.collectors.node_runs import Change, InfoOf
from exporter.exposition.metric import Key
from exporter.state.counters import CounterRow, counter
from exporter.state.failures import Failure
from exporter.state.histogram import Histogram, histogram

OPERATION = "Job_ListPreparationAndReleaseTaskStatus"

PREPARATION = "jobPreparationTaskExecutionInfo"
RELEASE = "jobReleaseTaskExecutionInfo"

DURATIONS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Seconds. From a script that only makes a directory to downloads that hold up a whole node."""


@dataclass(frozen=True)
class Kind:
    """One of the two kinds of task: its member on the wire, and its counters."""

    name: Literal["preparation", "release"]
    member: str
    info: InfoOf
    completed: CounterRow
    failed: CounterRow
    codes: CounterRow
    account_failed: CounterRow
    durations: Histogram
    retries: CounterRow | None

    def record_key(self, pool_id: str, node_id: str) -> tuple[str, ...]:
        """By what the run on a node is found among the records of the state."""
        return (self.name, pool_id, node_id)

    def zeros(self, pool_id: str) -> tuple[Key, ...]:
        """Counters that are there as soon as their pool is."""
        return _zeros(self.name, pool_id)

    def completions(self, where: tuple[str, Outcome], runs: int) -> Iterator[tuple[Key, float]]:
        """What it counts that so many runs completed. `where`: in which pool, and how they went."""
        pool_id, (_, result, category, code) = where
        if result is not None:
            yield (self.completed.name, (pool_id, result)), runs
        if category is not None and code is not None:
            yield (self.failed.name, (pool_id, category)), runs
            yield (self.codes.name, (pool_id, category, code)), runs

    def retried(self, retries: Mapping[str, int]) -> Iterator[tuple[Key, float]]:
        """What so many retries, by pool, count."""
        if self.retries is not None:
            for pool_id, number in retries.items():
                if number:
                    yield (self.retries.name, (pool_id,)), number

    def failure(self, change: Change, info: SpecialTaskExecutionInfo) -> Failure:
        """What the service says of a run that failed; a run does not hold it."""
        return Failure.of(
            self.name,
            info.failure_info,
            ended=unix_time(info.end_time or info.start_time),
            pool_id=change.pool_id,
            node_id=change.node_id,
            exit_code=info.exit_code,
        )

    @property
    def counters(self) -> tuple[CounterRow, ...]:
        """All of them."""
        rows = (self.completed, self.failed, self.codes, self.retries)
        return tuple(row for row in rows if row is not None)


def _kind(
    name: Literal["preparation", "release"],
    member: str,
    info: InfoOf,
) -> Kind:
    source = f"{OPERATION} {member}"
    prefix = f"azure_batch_job_{name}"
    return Kind(
        name,
        member,
        info,
        completed=counter(
            f"{prefix}_tasks_completed_total",
            f"Runs of the job {name} task on nodes that completed, each once, by result",
            f"{source}.state, .result",
            ("pool_id", "result"),
        ),
        failed=counter(
            f"{prefix}_tasks_failed_total",
            f"Runs of the job {name} task on nodes that failed, by category",
            f"{source}.failureInfo.category",
            ("pool_id", "category"),
        ),
        codes=counter(
            f"{prefix}_task_failure_codes_total",
            f"Runs of the job {name} task on nodes that failed, by category and code",
            f"{source}.failureInfo",
            ("pool_id", "category", "code"),
        ),
        account_failed=counter(
            f"azure_batch_account_{name}_tasks_failed_total",
            f"Runs of the {name} tasks of all selected jobs together that failed, by category",
            f"{source}.failureInfo.category",
            ("category",),
        ),
        durations=histogram(
            f"azure_batch_{name}_task_duration_seconds",
            f"How long runs of {name} tasks on nodes took, of the jobs of a group or of all jobs"
            " without one",
            f"{source}.endTime - .startTime",
            ("pool_id",),
            DURATIONS,
        ),
        # A release task is not retried.
        retries=counter(
            f"{prefix}_task_retries_total",
            f"Retries of the job {name} task on nodes",
            f"growth of {source}.retryCount",
            ("pool_id",),
        )
        if name == "preparation"
        else None,
    )


PREPARED = _kind("preparation", PREPARATION, attrgetter("preparation"))
RELEASED = _kind("release", RELEASE, attrgetter("release"))
KINDS = (PREPARED, RELEASED)


@lru_cache(maxsize=1000)  # of all jobs on a pool they are the same, and need be there only once
def _zeros(name: str, pool_id: str) -> tuple[Key, ...]:
    kind = PREPARED if name == PREPARED.name else RELEASED
    zeros: list[Key] = [(kind.completed.name, (pool_id, result)) for result in RESULTS]
    zeros += [(kind.failed.name, (pool_id, category)) for category in (*CATEGORIES, UNKNOWN)]
    if kind.retries is not None:
        zeros.append((kind.retries.name, (pool_id,)))
    return tuple(zeros)
