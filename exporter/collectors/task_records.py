"""The tasks of a job as they were last seen, and how listings change them.

A job may have a hundred thousand tasks and more, and nearly all of them succeed. One that succeeded
cannot change any more, because the service reactivates only what failed. Of such a task only its id
and time are kept, which is enough to recognise it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from exporter.batch.failure_codes import category
from exporter.batch.models import (
    Task,
    TaskExecutionInfo,
    enum_value,
    may_be_same,
    result_of,
    unix_time,
)
from exporter.batch.spellings import Spellings
from exporter.collectors.known_records import KnownRecords

STATES = ("active", "preparing", "running", "completed")
ON_A_NODE = ("preparing", "running")

_NOTHING = TaskExecutionInfo()


class TaskRecord(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One task. Times are Unix seconds.

    `changed`: when it came into its state. Of two records of an id the later is the newer one, also
    if the task was deleted and created again between them.
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

    @classmethod
    def of(cls, task: Task, spellings: Spellings) -> TaskRecord:
        """The task that the service shows. Its result counts only once it is completed."""
        info = task.execution_info or _NOTHING
        created = unix_time(task.creation_time)
        started, ended = unix_time(info.start_time), unix_time(info.end_time)
        changed = unix_time(task.state_transition_time)
        state = enum_value(task.state, STATES)
        result = result_of(info) if state == "completed" else None
        failed, failure = result == "failure", info.failure_info
        return cls(
            created,
            max(created or 0.0, started or 0.0, ended or 0.0) if changed is None else changed,
            started,
            ended,
            state,
            result,
            category(failure) if failed else None,
            spellings.code(failure.code if failure else None) if failed else None,
            info.retry_count or 0,
            info.requeue_count or 0,
        )

    def is_older_than(self, known: TaskRecord | float) -> bool:
        """Whether this is an earlier version than the known one; a float: when that succeeded."""
        if isinstance(known, float):
            return self.changed <= known
        return self.version < known.version

    @property
    def version(self) -> tuple[float, float, int]:
        """Of two records of a task the newer one has the greater version."""
        # A retry does not change the state: only the start moves, and the count.
        return self.changed, self.started or 0.0, self.retries

    def completes(self, before: TaskRecord | None) -> bool:
        """Whether this completion was not seen before."""
        return self.state == "completed" and not self._is_same_completion(before)

    def fails(self, before: TaskRecord | None) -> bool:
        """Whether this failure was not seen before. The exit code does not say what failed."""
        return self.result == "failure" and not (
            before is not None and before.result == "failure" and self._is_same_completion(before)
        )

    def starts(self, before: TaskRecord | None) -> bool:
        """Whether this start was not seen before, and is the first of the task's life.

        A task that was retried or requeued did not only wait before it started.
        """
        is_first = self.started is not None and not self.retries and not self.requeues
        if before is None or before.started is None:
            return is_first
        return is_first and not may_be_same(before.started, self.started)

    def retries_since(self, before: TaskRecord | None) -> int:
        """By how much retryCount grew; it counts from 0 again if the task was reactivated."""
        if before is None or (before.state == "completed" and not self._is_same_completion(before)):
            return self.retries
        return _growth(before.retries, self.retries)

    def requeues_since(self, before: TaskRecord | None) -> int:
        """By how much requeueCount grew."""
        return _growth(before.requeues if before else 0, self.requeues)

    def _is_same_completion(self, before: TaskRecord | None) -> bool:
        return (
            before is not None
            and before.state == self.state == "completed"
            and may_be_same(before.started, self.started)
            and may_be_same(before.ended, self.ended)
        )


def _growth(before: int, now: int) -> int:
    return now - before if now >= before else now


@dataclass(slots=True)
class TaskEvents:
    """What happened to the tasks of a job between two readings.

    `failed`: ids of tasks that failed. `codes`: their number by category and code.
    `runs`, `waits`: seconds.
    `corrections`: changes that an earlier listing of changes should have shown.
    """

    failed: set[str] = field(default_factory=set)
    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    runs: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    retries: int = 0
    requeues: int = 0
    corrections: int = 0

    def add(self, task_id: str, task: TaskRecord, before: TaskRecord | None) -> None:
        """Take a task that changed, and what it was before; None: it was not known."""
        self.retries += task.retries_since(before)
        self.requeues += task.requeues_since(before)
        if task.completes(before) and task.ended is not None and task.started is not None:
            self.runs.append(task.ended - task.started)
        if task.starts(before) and task.started is not None and task.created is not None:
            self.waits.append(task.started - task.created)
        if task.fails(before) and task.category is not None and task.code is not None:
            self.failed.add(task_id)
            self.codes[task.category, task.code] += 1


class Tasks(KnownRecords[TaskRecord, TaskRecord | float], frozen=True, gc=False):
    """The tasks of a job by id; for one that succeeded, its time `changed`.

    `failed`: number of tasks by category and code.
    `oldest_active`, `oldest_running`: creation and start of those that wait and run the longest.
    `on_nodes`: ids of tasks that run or are being prepared.
    `is_busy`: whether a task is not completed.
    """

    failed: Mapping[tuple[str, str], int] = {}
    oldest_active: float | None = None
    oldest_running: float | None = None
    on_nodes: frozenset[str] = frozenset()
    is_busy: bool = False

    @classmethod
    def of(
        cls, latest: Mapping[str, TaskRecord | float], missing: Mapping[str, TaskRecord | float]
    ) -> Tasks:
        """The tasks with their totals. One pass over all of them is simplest to get right."""
        failed: Counter[tuple[str, str]] = Counter()
        active: list[float] = []
        running: list[float] = []
        on_nodes: list[str] = []
        is_busy = False
        for task_id, task in latest.items():
            if isinstance(task, float):
                continue
            is_busy = is_busy or task.state != "completed"
            if task.state in ON_A_NODE:
                on_nodes.append(task_id)
            if task.category is not None and task.code is not None:
                failed[task.category, task.code] += 1
            elif task.state == "active" and task.created is not None:
                active.append(task.created)
            elif task.state == "running" and task.started is not None:
                running.append(task.started)
        return cls(
            latest,
            missing,
            dict(failed),
            min(active, default=None),
            min(running, default=None),
            frozenset(on_nodes),
            is_busy,
        )

    def merged(
        self, ids: Sequence[str], records: Sequence[TaskRecord], *, full: bool, missed_before: float
    ) -> tuple[Tasks, TaskEvents]:
        """The tasks after a reading, and what happened.

        `full`: the reading holds all tasks. `missed_before`: a change before this Unix time is a
        correction.
        """
        found: dict[str, TaskRecord | float] = {}
        events = TaskEvents()
        for number, last in self.changes(ids, records, found):
            task = records[number]
            before = last if isinstance(last, TaskRecord) else None
            if before is not None and not may_be_same(before.created, task.created):
                before = None  # another task that had the same id
            events.add(ids[number], task, before)
            if task.result == "success":
                found[ids[number]] = task.changed
            if task.state not in ON_A_NODE and task.changed < missed_before:
                events.corrections += 1
        # Every reading asks for all tasks on nodes: one that is not there was deleted.
        return Tasks.of(*self.after(found, None if full else self.on_nodes)), events
