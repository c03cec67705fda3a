"""What truly happened in the account, event by event, whether or not anyone looked in between.

A world keeps it from its first event on, the warm-up's among them, when it is made with
`ledger=True`. Nothing of it is ever dropped, so a world that lives for days should go without.
"""

from bisect import bisect_right
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeVar

from exporter.simulator.model import Job, NodeRecord, Task
from exporter.simulator.special_tasks import Execution


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a job. `job` is its number, for ids come back and numbers do not.

    `tick` is the service's own clock; times taken from a record are as the record has them.
    """

    tick: int
    job: int
    job_id: str


@dataclass(frozen=True, slots=True)
class JobCreated(Event):
    """The job is listed from now on."""


@dataclass(frozen=True, slots=True)
class JobGone(Event):
    """The job was deleted and is not found any more."""


@dataclass(frozen=True, slots=True)
class JobNotScheduled(Event):
    """The job is completed with a schedulingError, for its auto pool could not be made."""

    category: str
    code: str


@dataclass(frozen=True, slots=True)
class TaskEvent(Event):
    """Something happened to one task of the job."""

    task_id: str


@dataclass(frozen=True, slots=True)
class TaskAdded(TaskEvent):
    """The task is there, and active."""


@dataclass(frozen=True, slots=True)
class TaskStarted(TaskEvent):
    """The task left the active ones for preparing or running; `first` time, or again."""

    first: bool


@dataclass(frozen=True, slots=True)
class TaskRetried(TaskEvent):
    """The service runs the task again on its node: retryCount grew by one."""


@dataclass(frozen=True, slots=True)
class TaskRequeued(TaskEvent):
    """The task is active again for want of its node: requeueCount grew by one."""


@dataclass(frozen=True, slots=True)
class TaskReturned(TaskEvent):
    """The task is active again for its node's preparation failed: the service counts nothing."""


@dataclass(frozen=True, slots=True)
class TaskCompleted(TaskEvent):
    """The task is over. `run` is end - start, `wait` start - creation, in ticks of the record.

    Both are None where it has no start: it was `from_active`, or still preparing.
    """

    result: str
    category: str | None
    code: str | None
    exit_code: int | None
    run: int | None
    wait: int | None
    from_active: bool


@dataclass(frozen=True, slots=True)
class TaskDeleted(TaskEvent):
    """A user deleted the completed task: it is not listed nor counted any more."""

    result: str


@dataclass(frozen=True, slots=True)
class RunEvent(Event):
    """Something happened to a `kind` run, `preparation` or `release`, of the job on a node."""

    kind: str
    pool_id: str
    node_id: str


@dataclass(frozen=True, slots=True)
class RunStarted(RunEvent):
    """A run begins, for the first time or again: the record shows it in place of any earlier."""

    started: int
    retry_count: int


@dataclass(frozen=True, slots=True)
class RunRetried(RunEvent):
    """The service starts the run again, with another startTime: retryCount grew by one, to this."""

    retry_count: int


@dataclass(frozen=True, slots=True)
class RunCompleted(RunEvent):
    """The run is over; a run that the service retried is one run, with the last try's `started`.

    (job, node_id, kind, started) tells it from every other. A run that was cut short by its
    node's restart never completes: the next one takes its place in the record.
    """

    started: int
    ended: int
    result: str
    category: str | None
    code: str | None
    exit_code: int | None
    retry_count: int


@dataclass(frozen=True, slots=True)
class CountsRaised(Event):
    """The job's task counts are answered too high from now on: `by` so many of `result`."""

    result: str
    by: int


@dataclass(frozen=True, slots=True)
class CountsCorrected(Event):
    """They are answered as they are again, `by` so many lower."""

    result: str
    by: int


_Kind = TypeVar("_Kind", bound=Event)


class Ledger:
    """Events in the order in which they happened; nothing is kept where it is not `kept`."""

    def __init__(self, *, kept: bool) -> None:
        """Start empty."""
        self.kept = kept
        self.events: list[Event] = []
        self._by_type: dict[type[Event], list[Event]] = {}

    def of(
        self,
        kind: type[_Kind],
        *,
        since_tick: int | None = None,
        until_tick: int | None = None,
        job: int | None = None,
    ) -> list[_Kind]:
        """The events of a type, or of those derived from it.

        After `since_tick`, which was seen already, up to and at `until_tick`; of the job of this
        number.
        """
        events = self._by_type.get(kind, []) if kind in _FINAL else self.events
        tick = attrgetter("tick")
        first = 0 if since_tick is None else bisect_right(events, since_tick, key=tick)
        last = len(events) if until_tick is None else bisect_right(events, until_tick, key=tick)
        return [
            event
            for event in events[first:last]
            if isinstance(event, kind) and (job is None or event.job == job)
        ]

    def shown_until(self) -> dict[RunCompleted, int | None]:
        """For each completed run the tick from which no list shows it any more.

        Then another began in its record, or its job was gone. None: it is still shown.
        """
        until: dict[RunCompleted, int | None] = {}
        shown: dict[int, dict[tuple[str, str], RunCompleted]] = {}
        for event in self.events:
            if isinstance(event, RunCompleted):
                shown.setdefault(event.job, {})[event.node_id, event.kind] = event
                until[event] = None
            elif isinstance(event, RunStarted):
                earlier = shown.get(event.job, {}).pop((event.node_id, event.kind), None)
                if earlier is not None:
                    until[earlier] = event.tick
            elif isinstance(event, JobGone):
                until.update(dict.fromkeys(shown.pop(event.job, {}).values(), event.tick))
        return until

    def add(self, event: Event) -> None:
        """Note an event, which is not earlier than those before it."""
        self.events.append(event)
        self._by_type.setdefault(type(event), []).append(event)

    def job(self, kind: type[JobCreated | JobGone], tick: int, job: Job) -> None:
        """A job came or went."""
        if self.kept:
            self.add(kind(tick, job.number, job.id))

    def job_not_scheduled(self, tick: int, job: Job) -> None:
        """A job is over that never ran."""
        error = job.scheduling_error
        if self.kept and error is not None:
            self.add(JobNotScheduled(tick, job.number, job.id, error.category, error.code))

    def task(
        self,
        kind: type[TaskAdded | TaskRetried | TaskRequeued | TaskReturned],
        tick: int,
        task: Task,
    ) -> None:
        """Something happened to a task of which there is no more to say."""
        if self.kept:
            self.add(kind(tick, task.job.number, task.job.id, task.id))

    def task_started(self, tick: int, task: Task, *, first: bool) -> None:
        """A task left the active ones."""
        if self.kept:
            self.add(TaskStarted(tick, task.job.number, task.job.id, task.id, first))

    def task_completed(self, tick: int, task: Task, *, from_active: bool) -> None:
        """A task is over, as it says itself."""
        if not self.kept or task.result is None or task.ended is None:
            return
        failure, started = task.failure, task.started
        self.add(
            TaskCompleted(
                tick=tick,
                job=task.job.number,
                job_id=task.job.id,
                task_id=task.id,
                result=task.result,
                category=failure.category if failure else None,
                code=failure.code if failure else None,
                exit_code=task.exit_code,
                run=None if started is None else task.ended - started,
                wait=None if started is None else started - task.created,
                from_active=from_active,
            )
        )

    def task_deleted(self, tick: int, task: Task) -> None:
        """A completed task was deleted."""
        if self.kept and task.result is not None:
            self.add(TaskDeleted(tick, task.job.number, task.job.id, task.id, task.result))

    def run_started(self, tick: int, record: NodeRecord, execution: Execution) -> None:
        """A preparation or release begins, or the next try of it."""
        if self.kept:
            self.add(
                RunStarted(tick, *_run(record, execution), execution.started, execution.retry_count)
            )

    def run_retried(self, tick: int, record: NodeRecord) -> None:
        """A preparation is tried again."""
        if self.kept:
            execution = record.preparation
            self.add(RunRetried(tick, *_run(record, execution), execution.retry_count))

    def run_completed(self, tick: int, record: NodeRecord, execution: Execution) -> None:
        """A preparation or release run is over, as it says itself."""
        if not self.kept or execution.result is None or execution.ended is None:
            return
        failure = execution.failure
        self.add(
            RunCompleted(
                tick,
                *_run(record, execution),
                started=execution.started,
                ended=execution.ended,
                result=execution.result,
                category=failure.category if failure else None,
                code=failure.code if failure else None,
                exit_code=execution.exit_code,
                retry_count=execution.retry_count,
            )
        )

    def counts(
        self, kind: type[CountsRaised | CountsCorrected], tick: int, job: Job, result: str, by: int
    ) -> None:
        """A job's answered counts went wrong, or right again."""
        if self.kept:
            self.add(kind(tick, job.number, job.id, result, by))


def _run(record: NodeRecord, execution: Execution) -> tuple[int, str, str, str, str]:
    """Of which job, of which kind, and where."""
    kind = "preparation" if execution is record.preparation else "release"
    return record.job.number, record.job.id, kind, record.pool_id, record.node_id


_FINAL = frozenset(
    {
        JobCreated, JobGone, JobNotScheduled, TaskAdded, TaskStarted, TaskRetried, TaskRequeued,
        TaskReturned, TaskCompleted, TaskDeleted, RunStarted, RunRetried, RunCompleted,
        CountsRaised, CountsCorrected,
    }
)  # fmt: skip
"""The types that events are really of; the others are what several have in common."""
