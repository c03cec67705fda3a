"""What can be known of a simulated account by looking at it at the moments of the polls.

It looks into the simulator's own objects, remembers what it saw, and counts what was not there
before; nothing of the exporter's folding is used. A look has parts, one for each job and collector:
of the last look of a process that is killed only some may have been written down. Who asks for
changes alone sees those that the service's index has learnt of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from exporter.simulator import World
from exporter.simulator.counts import Counts
from exporter.simulator.ledger import (
    RunCompleted,
    RunRetried,
    TaskCompleted,
    TaskRequeued,
    TaskRetried,
)
from exporter.simulator.ticks import SECOND
from exporter.state.saved import Changes
from tests.truth import BOUNDS, CATEGORIES, Series

WATCHED = {"active", "disabling", "disabled", "enabling", "terminating"}
RESULTS = ("success", "failure")
ALL_CATEGORIES = (*CATEGORIES, "unknown")

Run = tuple[int, str, str, int]
"""(number of the job, node, kind, start)."""

OVERLAP = 60.0
"""Seconds before the last look from which changes are asked for again."""


class Marks(NamedTuple):
    """When there was a look at a part, and when one at all of it, in Unix seconds."""

    read_at: float
    listed_at: float


class SeenTask(NamedTuple):
    """What is remembered of a task."""

    started: int | None
    result: str | None
    retries: int
    requeues: int


class SeenRun(NamedTuple):
    """What is remembered of the latest run of a preparation on a node."""

    started: int
    state: str
    retries: int

    def retries_since(self, before: SeenRun | None) -> int:
        """The fewest retries that explain what is seen now.

        Each retry moves the start, and each run that begins anew has had none. So a run that goes
        on and one that took its place look alike where the count grew: then it is the same run.
        """
        if before is None:
            return self.retries
        may_go_on = before.state == "running" and self.retries > before.retries
        if may_go_on or self.started == before.started:
            return self.retries - before.retries
        return self.retries


def times_of_task(task: Any) -> list[int | None]:
    """When it came into its state; None: it runs, and may change without leaving that."""
    return [None if task.state in ("preparing", "running") else task.state_changed]


def times_of_runs(record: Any) -> list[int | None]:
    """When what ran on a node started and ended; None: it still runs."""
    runs = [run for run in (record.preparation, record.release) if run is not None]
    return [time for run in runs for time in (run.started, run.ended)]


@dataclass
class Written:
    """What was written down of a look: readings by (job id, collector), and jobs let go."""

    readings: set[tuple[str, str]] = field(default_factory=set)
    let_go: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, written: Iterable[Changes]) -> Written:
        """From what a killed process handed to its state file."""
        found = cls()
        for changes in written:
            for job_id, job in changes.jobs.items():
                if job is None or job.left_at is not None:
                    found.let_go.add(job_id)
            found.readings.update(changes.folded)
        return found


@dataclass
class Observer:
    """Looks at an account of which all jobs are in the group `all`.

    `series`: what the counters must be. `asked`: jobs that were selected at the last look.
    `marks`: of what was seen before, by job and collector. `runs`: completed ones, with their
    result.
    """

    world: World
    resync_interval: float
    series: Series = field(default_factory=Counter)
    first_look: int | None = None
    asked: dict[int, Any] = field(default_factory=dict)
    marks: dict[tuple[int, str], Marks] = field(default_factory=dict)
    counts: dict[int, Counts] = field(default_factory=dict)
    runs: dict[Run, str] = field(default_factory=dict)
    preparations: dict[tuple[int, str], SeenRun] = field(default_factory=dict)
    tasks: dict[tuple[int, str], SeenTask] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The account's counters are there from the start."""
        for result in RESULTS:
            self._count("account_tasks_completed_total", 0, result=result)
        for tasks in ("preparation_tasks", "release_tasks", "tasks"):
            for category in ALL_CATEGORIES:
                self._count(f"account_{tasks}_failed_total", 0, category=category)

    def look(self, written: Written | None = None) -> None:
        """A round of polls. `written`: what is left of it, where the process was killed then."""
        is_first = self.first_look is None
        if self.first_look is None:
            self.first_look = self.world.tick
        here = set(map(id, self.world.jobs.values()))
        selected = {job.number: job for job in self.world.jobs.values() if job.state in WATCHED}
        # A job that left is asked once more, if it still exists.
        left = {number: job for number, job in self.asked.items() if number not in selected}
        for job in (*selected.values(), *(job for job in left.values() if id(job) in here)):
            is_new = job.created >= self.first_look and not is_first
            for collector, look_at in (
                ("task_counts", self._look_at_counts),
                ("preparation_release", self._look_at_nodes),
                ("tasks", self._look_at_tasks),
            ):
                if written is None or (job.id, collector) in written.readings:
                    marks = self.marks.get((job.number, collector))
                    since = self._mark(job, collector)
                    # Of a job that is older than the watch, only what comes after is counted.
                    look_at(job, since, counts=is_new or marks is not None)
                    self.asked[job.number] = job
        for number, job in left.items():
            if written is None or job.id in written.let_go:
                del self.asked[number]

    def _mark(self, job: Any, collector: str) -> float | None:
        """Note that this is looked at; gives since when changes are asked for, or None for all."""
        now = self.world.now.timestamp()
        before = self.marks.get((job.number, collector))
        if before is None or now - before.listed_at >= self.resync_interval:
            self.marks[job.number, collector] = Marks(now, now)
            return None
        self.marks[job.number, collector] = Marks(now, before.listed_at)
        return before.read_at - OVERLAP

    def _changed(
        self,
        entities: Iterable[Any],
        times_of: Callable[[Any], list[int | None]],
        since: float | None,
    ) -> list[Any]:
        """Those of which the index knows that they run or changed since; None: all."""
        if since is None:
            return list(entities)
        return [
            entity
            for entity in entities
            if (seen := self.world.index.seen(entity)) is not None
            and any(tick is None or tick >= since * SECOND for tick in times_of(seen))
        ]

    def _look_at_counts(self, job: Any, _: float | None, *, counts: bool) -> None:
        now = job.reported_task_counts
        before = self.counts.get(job.number, Counts(0, 0, 0, 0)) if counts else now
        self.counts[job.number] = now
        for result, growth in (
            ("success", now.succeeded - before.succeeded),
            ("failure", now.failed - before.failed),
        ):
            self._count("account_tasks_completed_total", max(0, growth), result=result)
            self._count_job("tasks_completed_total", max(0, growth), result=result)
        started = now.running + now.completed - before.running - before.completed
        added = started + now.active - before.active
        fell = now.succeeded < before.succeeded or now.failed < before.failed or added < 0
        self._count_job("tasks_started_total", max(0, started))
        self._count_job("tasks_added_total", max(0, added))
        self._count_job("task_count_regressions_total", int(fell))

    def _look_at_nodes(self, job: Any, since: float | None, *, counts: bool) -> None:
        if job.preparation is None:
            return  # then it has no release either
        for pool_id in {job.pool.id, *(record.pool_id for record in job.records.values())}:
            self._count_job("preparation_task_retries_total", 0, pool_id=pool_id)
            for kind in ("preparation", "release"):
                self._observe(f"{kind}_task_duration_seconds", None, pool_id=pool_id)
                for result in RESULTS:
                    name = f"{kind}_tasks_completed_total"
                    self._count_job(name, 0, pool_id=pool_id, result=result)
                for category in ALL_CATEGORIES:
                    name = f"{kind}_tasks_failed_total"
                    self._count_job(name, 0, pool_id=pool_id, category=category)
        for record in self._changed(job.records.values(), times_of_runs, since):
            run, place = record.preparation, (job.number, record.node_id)
            now = SeenRun(run.started, run.state, run.retry_count)
            retries = now.retries_since(self.preparations.get(place)) if counts else 0
            self.preparations[place] = now
            self._count_job("preparation_task_retries_total", retries, pool_id=record.pool_id)
            self._look_at_run(record, "preparation", run, counts=counts)
            if record.release is not None:
                self._look_at_run(record, "release", record.release, counts=counts)

    def _look_at_run(self, record: Any, kind: str, run: Any, *, counts: bool) -> None:
        key = (record.job.number, record.node_id, kind, run.started)
        if run.state != "completed" or key in self.runs:
            return
        self.runs[key] = run.result
        if not counts:
            return
        pool = {"pool_id": record.pool_id}
        self._count_job(f"{kind}_tasks_completed_total", 1, **pool, result=run.result)
        self._observe(f"{kind}_task_duration_seconds", run.ended - run.started, **pool)
        if run.result == "failure":
            category, code = run.failure.category.lower(), run.failure.code
            self._count(f"account_{kind}_tasks_failed_total", 1, category=category)
            self._count_job(f"{kind}_tasks_failed_total", 1, **pool, category=category)
            name = f"{kind}_task_failure_codes_total"
            self._count_job(name, 1, **pool, category=category, code=code)

    def _look_at_tasks(self, job: Any, since: float | None, *, counts: bool) -> None:
        for category in ALL_CATEGORIES:
            self._count_job("tasks_failed_total", 0, category=category)
        self._count_job("task_retries_total", 0)
        self._count_job("task_requeues_total", 0)
        self._observe("task_run_seconds", None)
        self._observe("task_wait_seconds", None)
        for task in self._changed(job.tasks.values(), times_of_task, since):
            key = (job.number, task.id)
            before = self.tasks.get(key, SeenTask(None, None, 0, 0))
            now = SeenTask(task.started, task.result, task.retry_count, task.requeue_count)
            self.tasks[key] = now
            if counts:
                self._count_task(task, before, now)

    def _count_task(self, task: Any, before: SeenTask, now: SeenTask) -> None:
        self._count_job("task_retries_total", now.retries - before.retries)
        self._count_job("task_requeues_total", now.requeues - before.requeues)
        # Who was retried or requeued before its start was seen did not only wait.
        is_first_start = not now.retries and not now.requeues and before.started is None
        if now.started is not None and is_first_start:
            self._observe("task_wait_seconds", now.started - task.created)
        if now.result is None or before.result is not None:
            return
        if now.started is not None:
            self._observe("task_run_seconds", task.ended - now.started)
        if now.result == "failure":
            category, code = task.failure.category.lower(), task.failure.code
            self._count("account_tasks_failed_total", 1, category=category)
            self._count_job("tasks_failed_total", 1, category=category)
            self._count_job("task_failure_codes_total", 1, category=category, code=code)

    def _count(self, name: str, by: float, **labels: str) -> None:
        key = f"azure_batch_{name}", frozenset({"account": "simulated", **labels}.items())
        self.series[key] += by

    def _count_job(self, name: str, by: float, **labels: str) -> None:
        self._count(f"job_{name}", by, job_group="all", **labels)

    def _observe(self, name: str, ticks: int | None, **labels: str) -> None:
        """A duration for a histogram; None: its series are there."""
        # A duration between two clocks may seem to be below 0.
        seconds = max(0, ticks or 0) / SECOND
        is_one = ticks is not None
        for bound in (*BOUNDS[name], float("inf")):
            within = int(is_one and seconds <= bound)
            le = "+Inf" if bound == float("inf") else str(float(bound))
            self._count(f"{name}_bucket", within, **labels, job_group="all", le=le)
        self._count(f"{name}_count", int(is_one), **labels, job_group="all")
        self._count(f"{name}_sum", seconds if is_one else 0.0, **labels, job_group="all")

    def check(self) -> None:
        """What was seen is part of what truly happened."""
        ledger = self.world.ledger
        runs = {(e.job, e.node_id, e.kind, e.started): e.result for e in ledger.of(RunCompleted)}
        assert self.runs.items() <= runs.items()
        tasks = {(event.job, event.task_id): event.result for event in ledger.of(TaskCompleted)}
        seen = {key: task.result for key, task in self.tasks.items() if task.result is not None}
        assert seen.items() <= tasks.items()
        for name, event in (
            ("preparation_task_retries", RunRetried),
            ("task_retries", TaskRetried),
            ("task_requeues", TaskRequeued),
        ):
            counted = sum(
                value
                for (of, _), value in self.series.items()
                if of == f"azure_batch_job_{name}_total"
            )
            happened = len(ledger.of(event, since_tick=self.first_look))
            assert counted <= happened, name
