"""Tasks of a job as they were last seen, in little memory, and what changed between two readings.

A job may have a hundred thousand tasks and more, nearly all of which succeeded. One that succeeded
cannot change any more (the service reactivates only what failed), so of it only its id and time
are kept: enough to know it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from exporter.batch.failure_codes import category, code
from exporter.batch.models import Task, TaskExecutionInfo, enum_value, unix_time

STATES = ("active", "preparing", "running", "completed")
RESULTS = ("success", "failure")

_NOTHING = TaskExecutionInfo()


class Record(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One task. Times are Unix seconds.

    Unlike a tuple it is nothing that the garbage collector would look through, again and again.
    `changed`: when it came into its state; of two records of an id the later is the newer one, also
    where the task was deleted and created again between them.
    """

    created: float | None
    changed: float
    started: float | None
    ended: float | None
    state: str | None
    result: str | None
    category: str | None
    code: str | None
    retries: int
    requeues: int

    @property
    def is_completed(self) -> bool:
        """Whether it is over."""
        return self.state == "completed"

    @property
    def has_failed(self) -> bool:
        """Whether it is over and failed, which its exit code does not say."""
        return self.result == "failure"

    @property
    def is_settled(self) -> bool:
        """Whether it cannot change any more."""
        return self.result == "success"


def record_of(task: Task) -> Record:
    """What is kept of a task that the service shows."""
    info = task.execution_info or _NOTHING
    created = unix_time(task.creation_time)
    started, ended = unix_time(info.start_time), unix_time(info.end_time)
    changed = unix_time(task.state_transition_time)
    state = enum_value(task.state, STATES)
    result = enum_value(info.result, RESULTS) if state == "completed" else None
    failed = result == "failure"
    return Record(
        created,
        max(created or 0.0, started or 0.0, ended or 0.0) if changed is None else changed,
        started,
        ended,
        state,
        result,
        category(info.failure_info) if failed else None,
        code(info.failure_info) if failed else None,
        info.retry_count or 0,
        info.requeue_count or 0,
    )


class Change(NamedTuple):
    """A task as it was known, and as it is. `before`: None where this task was not known."""

    id: str
    before: Record | None
    now: Record

    @property
    def completes(self) -> bool:
        """Whether this is a completion that was not seen before."""
        return self.now.is_completed and not self._is_same_completion

    @property
    def fails(self) -> bool:
        """Whether this is a failure that was not seen before."""
        seen = self._is_same_completion and self.before is not None and self.before.has_failed
        return self.now.has_failed and not seen

    @property
    def starts(self) -> bool:
        """Whether this is a start that was not seen before, the first of the task's life.

        A task that was retried or requeued did not only wait before it started.
        """
        return (
            self.now.started is not None
            and not self.now.retries
            and not self.now.requeues
            and (self.before is None or self.before.started != self.now.started)
        )

    @property
    def retries(self) -> int:
        """By how much retryCount grew; it counts from 0 again where the task was reactivated."""
        before = self.before
        if before is None or (before.is_completed and not self._is_same_completion):
            return self.now.retries
        return _growth(before.retries, self.now.retries)

    @property
    def requeues(self) -> int:
        """By how much requeueCount grew."""
        return _growth(self.before.requeues if self.before else 0, self.now.requeues)

    @property
    def _is_same_completion(self) -> bool:
        before, now = self.before, self.now
        return (
            before is not None
            and before.is_completed
            and now.is_completed
            and (before.started, before.ended) == (now.started, now.ended)
        )


def _growth(before: int, now: int) -> int:
    return now - before if now >= before else now


@dataclass(frozen=True)
class Tasks:
    """All tasks of a job by id.

    `unsettled`: those that may still change, and `succeeded`: when the others did.
    `missing`: tasks that the last full listing did not hold, and since then those that ran and do
    no more. Pages are no snapshot: one that comes back with the next is not another task.
    `failed`: number of tasks by (category, code).
    `oldest_active`, `oldest_running`: creation and start of those that wait and run the longest.
    """

    unsettled: Mapping[str, Record] = field(default_factory=dict)
    succeeded: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, Record | float] = field(default_factory=dict)
    failed: Mapping[tuple[str, str], int] = field(default_factory=dict)
    oldest_active: float | None = None
    oldest_running: float | None = None

    @classmethod
    def of(
        cls,
        tasks: Iterable[tuple[str, Record | float]],
        missing: Mapping[str, Record | float],
    ) -> Tasks:
        """These tasks; of one that succeeded, when it did."""
        unsettled: dict[str, Record] = {}
        succeeded: dict[str, float] = {}
        for task_id, known in tasks:
            if isinstance(known, Record):
                unsettled[task_id] = known
            else:
                succeeded[task_id] = known
        return _summed(unsettled, succeeded, missing)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self.unsettled or task_id in self.succeeded

    def merged(
        self, seen: Iterable[tuple[str, Record]], *, full: bool
    ) -> tuple[Tasks, list[Change]]:
        """These tasks after a reading, and what changed.

        `full`: the reading holds every task, so one that it does not hold is gone. A record that
        is older than what is known of its task changes nothing.
        """
        unsettled = {} if full else dict(self.unsettled)
        succeeded = {} if full else dict(self.succeeded)
        known = (unsettled, succeeded, self.unsettled, self.succeeded, self.missing)
        changes = []
        ids = set()
        for task_id, record in seen:
            ids.add(task_id)
            before = _find(task_id, *known)
            latest = _later(before, record)
            if isinstance(latest, Record) and not latest.is_settled:
                unsettled[task_id] = latest
                succeeded.pop(task_id, None)
            else:
                succeeded[task_id] = latest if isinstance(latest, float) else latest.changed
                unsettled.pop(task_id, None)
            if latest is record and record != before:
                changes.append(Change(task_id, _same_life(before, record), record))
        missing: dict[str, Record | float]
        if full:
            missing = {
                task_id: last
                for tasks in (self.succeeded, self.unsettled)
                for task_id, last in tasks.items()
                if task_id not in unsettled and task_id not in succeeded
            }
        else:
            # Every reading asks for all that runs: what ran and is not there was deleted.
            gone = [
                task_id
                for task_id, record in self.unsettled.items()
                if record.state in ("preparing", "running") and task_id not in ids
            ]
            missing = {key: last for key, last in self.missing.items() if key not in ids}
            missing |= {task_id: unsettled.pop(task_id) for task_id in gone}
        return _summed(unsettled, succeeded, missing), changes


def _find(
    task_id: str, *places: Mapping[str, Record] | Mapping[str, float] | Mapping[str, Record | float]
) -> Record | float | None:
    for place in places:
        if task_id in place:
            return place[task_id]
    return None


def _later(before: Record | float | None, record: Record) -> Record | float:
    if isinstance(before, Record):
        return before if _age(record) < _age(before) else record
    return before if before is not None and record.changed <= before else record


def _age(record: Record) -> tuple[float, float, int]:
    # A retry does not change the state: only the start moves, and the count.
    return record.changed, record.started or 0.0, record.retries


def _same_life(before: Record | float | None, record: Record) -> Record | None:
    """The record before, unless it is of another task that had the same id."""
    if not isinstance(before, Record) or before.created != record.created:
        return None
    return before


def _summed(
    unsettled: Mapping[str, Record],
    succeeded: Mapping[str, float],
    missing: Mapping[str, Record | float],
) -> Tasks:
    """One pass over what is not settled: cheaper to get right than to keep with each change."""
    failed: Counter[tuple[str, str]] = Counter()
    active: list[float] = []
    running: list[float] = []
    for record in unsettled.values():
        if record.category is not None and record.code is not None:
            failed[record.category, record.code] += 1
        elif record.state == "active" and record.created is not None:
            active.append(record.created)
        elif record.state == "running" and record.started is not None:
            running.append(record.started)
    return Tasks(
        unsettled,
        succeeded,
        missing,
        dict(failed),
        min(active, default=None),
        min(running, default=None),
    )
