"""What the counters must be, by what the service showed whenever the exporter asked.

The observer stands before a simulated account. Whenever a question is answered it looks into the
simulator's own objects, remembers what it saw, and counts what was not there before; nothing of the
exporter's folding is used. Who asks for changes alone sees those that the service's index has
learnt of.

A user may delete a job and create another one under its id. Until a listing shows the new one, who
asks cannot know whose answers these are: so of such a job all that was shown *may* be counted, and
*must* be once it was listed and read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiohttp import web

from exporter.simulator import BatchError, Call, World
from exporter.simulator.counts import Counts
from exporter.simulator.faults.answers import body_of
from exporter.simulator.ledger import (
    RunCompleted,
    RunRetried,
    TaskCompleted,
    TaskRequeued,
    TaskRetried,
)
from exporter.simulator.server import Proceed
from exporter.simulator.ticks import SECOND
from exporter.state.saved import Changes
from tests.mishaps import Mishaps
from tests.truth import BOUNDS, CATEGORIES, Series

WATCHED = {"active", "disabling", "disabled", "enabling", "terminating"}
RESULTS = ("success", "failure")
ALL_CATEGORIES = (*CATEGORIES, "unknown")

COLLECTORS = {
    "Job_GetTaskCounts": "task_counts",
    "Job_ListPreparationAndReleaseTaskStatus": "preparation_release",
    "Task_List": "tasks",
}
"""The collector that asks each operation."""

NODES, TASKS = list(COLLECTORS)[1:]

Growth = Counter[tuple[str, str, frozenset[tuple[str, str]]]]
"""What a look adds, by whose it is (`account`, `job` or `histogram`), name and labels."""

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
class Seen:
    """What was seen of one job. `runs`: completed ones, with their result."""

    job: Any
    looked_at: set[str] = field(default_factory=set)
    counts: Counts | None = None
    runs: dict[tuple[str, str, int], str] = field(default_factory=dict)
    preparations: dict[str, SeenRun] = field(default_factory=dict)
    tasks: dict[str, SeenTask] = field(default_factory=dict)
    is_settled: bool = False

    def look_at_counts(self, growth: Growth, *, counts: bool) -> None:
        """See the answered counts. `counts`: what is there at first sight is new."""
        now = self.job.reported_task_counts
        before = self.counts or (Counts(0, 0, 0, 0) if counts else now)
        self.counts = now
        for result, grown in (
            ("success", now.succeeded - before.succeeded),
            ("failure", now.failed - before.failed),
        ):
            add(growth, "account", "account_tasks_completed_total", max(0, grown), result=result)
            add(growth, "job", "job_tasks_completed_total", max(0, grown), result=result)
        started = now.running + now.completed - before.running - before.completed
        added = started + now.active - before.active
        fell = now.succeeded < before.succeeded or now.failed < before.failed or added < 0
        add(growth, "job", "job_tasks_started_total", max(0, started))
        add(growth, "job", "job_tasks_added_total", max(0, added))
        add(growth, "job", "job_task_count_regressions_total", int(fell))

    def look_at_nodes(self, growth: Growth, shown: Iterable[Any], *, counts: bool) -> None:
        """See the records of nodes."""
        job = self.job
        if job.preparation is None:
            return  # then it has no release either
        pools = {record.pool_id for record in job.records.values()}
        for pool_id in pools | ({job.pool.id} if job.pool.made else set()):
            pool = {"pool_id": pool_id}
            add(growth, "job", "job_preparation_task_retries_total", 0, **pool)
            for kind in ("preparation", "release"):
                observe(growth, f"{kind}_task_duration_seconds", None, **pool)
                for result in RESULTS:
                    name = f"job_{kind}_tasks_completed_total"
                    add(growth, "job", name, 0, **pool, result=result)
                for category in ALL_CATEGORIES:
                    name = f"job_{kind}_tasks_failed_total"
                    add(growth, "job", name, 0, **pool, category=category)
        for record in shown:
            run, pool = record.preparation, {"pool_id": record.pool_id}
            now = SeenRun(run.started, run.state, run.retry_count)
            retries = now.retries_since(self.preparations.get(record.node_id)) if counts else 0
            self.preparations[record.node_id] = now
            add(growth, "job", "job_preparation_task_retries_total", retries, **pool)
            self._look_at_run(growth, record, "preparation", run, counts=counts)
            if record.release is not None:
                self._look_at_run(growth, record, "release", record.release, counts=counts)

    def _look_at_run(
        self, growth: Growth, record: Any, kind: str, run: Any, *, counts: bool
    ) -> None:
        key = (record.node_id, kind, run.started)
        if run.state != "completed" or key in self.runs:
            return
        self.runs[key] = run.result
        if not counts:
            return
        pool = {"pool_id": record.pool_id}
        add(growth, "job", f"job_{kind}_tasks_completed_total", 1, **pool, result=run.result)
        observe(growth, f"{kind}_task_duration_seconds", run.ended - run.started, **pool)
        if run.result == "failure":
            category, code = run.failure.category.lower(), run.failure.code
            add(growth, "account", f"account_{kind}_tasks_failed_total", 1, category=category)
            add(growth, "job", f"job_{kind}_tasks_failed_total", 1, **pool, category=category)
            name = f"job_{kind}_task_failure_codes_total"
            add(growth, "job", name, 1, **pool, category=category, code=code)

    def look_at_tasks(self, growth: Growth, shown: Iterable[Any], *, counts: bool) -> None:
        """See tasks."""
        for category in ALL_CATEGORIES:
            add(growth, "job", "job_tasks_failed_total", 0, category=category)
        add(growth, "job", "job_task_retries_total", 0)
        add(growth, "job", "job_task_requeues_total", 0)
        observe(growth, "task_run_seconds", None)
        observe(growth, "task_wait_seconds", None)
        for task in shown:
            before = self.tasks.get(task.id, SeenTask(None, None, 0, 0))
            now = SeenTask(task.started, task.result, task.retry_count, task.requeue_count)
            self.tasks[task.id] = now
            if counts:
                _count_task(growth, task, before, now)

    def end_round(self, operations: Collection[str], mishaps: Mishaps) -> None:
        """Note whether the job is over, and all was seen that the operations show just now."""
        counts, job = self.counts, self.job
        if job.state != "completed" or counts is None or counts.running:
            return
        if not {*COLLECTORS} <= {*operations, *(() if job.preparation else (NODES,))}:
            return
        self.is_settled |= all(
            (record.node_id, kind, run.started) in self.runs
            for record in job.records.values()
            if not mishaps.hides(NODES, job.id, record.node_id)
            for kind, run in (("preparation", record.preparation), ("release", record.release))
            if run is not None and run.state == "completed"
        ) and all(
            task.result == (seen.result if (seen := self.tasks.get(task.id)) else None)
            for task in job.tasks.values()
            if not mishaps.hides(TASKS, job.id, task.id)
        )


def _count_task(growth: Growth, task: Any, before: SeenTask, now: SeenTask) -> None:
    add(growth, "job", "job_task_retries_total", now.retries - before.retries)
    add(growth, "job", "job_task_requeues_total", now.requeues - before.requeues)
    # Who was retried or requeued before its start was seen did not only wait.
    is_first_start = not now.retries and not now.requeues and before.started is None
    if now.started is not None and is_first_start:
        observe(growth, "task_wait_seconds", now.started - task.created)
    if now.result is None or before.result is not None:
        return
    if now.started is not None:
        observe(growth, "task_run_seconds", task.ended - now.started)
    if now.result == "failure":
        category, code = task.failure.category.lower(), task.failure.code
        add(growth, "account", "account_tasks_failed_total", 1, category=category)
        add(growth, "job", "job_tasks_failed_total", 1, category=category)
        add(growth, "job", "job_task_failure_codes_total", 1, category=category, code=code)


def add(growth: Growth, whose: str, name: str, by: float, **labels: str) -> None:
    """Add to what a look found; 0: the series is there."""
    growth[whose, name, frozenset(labels.items())] += by  # type: ignore[assignment]


def observe(growth: Growth, name: str, ticks: int | None, **labels: str) -> None:
    """Add a duration to a histogram; None: its series are there."""
    # A duration between two clocks may seem to be below 0.
    seconds = max(0, ticks or 0) / SECOND
    is_one = ticks is not None
    for bound in (*BOUNDS[name], float("inf")):
        within = int(is_one and seconds <= bound)
        le = "+Inf" if bound == float("inf") else str(float(bound))
        add(growth, "histogram", f"{name}_bucket", within, **labels, le=le)
    add(growth, "histogram", f"{name}_count", int(is_one), **labels)
    add(growth, "histogram", f"{name}_sum", seconds if is_one else 0.0, **labels)


@dataclass
class Written:
    """What was written down of a round: readings by (job id, collector), and the first listing."""

    readings: set[tuple[str, str]] = field(default_factory=set)
    is_watched: bool = False

    @classmethod
    def of(cls, written: Iterable[Changes]) -> Written:
        """From what a killed process handed to its state file."""
        found = cls()
        for changes in written:
            found.is_watched |= changes.watched_since is not None
            found.readings.update((job_id.lower(), name) for job_id, name in changes.folded)
        return found


class Look(NamedTuple):
    """A question that was answered in full. `believed`: number of the job that it was about."""

    job: Any
    believed: int
    operation: str
    is_full: bool


@dataclass
class Observer:
    """An interceptor that looks at an account. `group`: all its jobs are in; None: in none.

    `must`, `may`: what the counters must be at least, and may be at most. `known`: by id in lower
    case, the job that a listing last showed under it. `sure`, `seen`: what was seen of each job
    since a listing showed it, and in all. `unsure`: what was seen of a job, by number and
    collector, while another one was believed to have its id. `marks`: by the number of the job that
    was asked about.
    """

    world: World
    mishaps: Mishaps
    resync_interval: float
    group: str | None
    must: Series = field(default_factory=Counter)
    may: Series = field(default_factory=Counter)
    first_listing: int | None = None
    last_listing: int = 0
    before_watch: set[int] = field(default_factory=set)
    known: dict[str, Any] = field(default_factory=dict)
    sure: dict[int, Seen] = field(default_factory=dict)
    seen: dict[int, Seen] = field(default_factory=dict)
    unsure: dict[tuple[int, str], Growth] = field(default_factory=dict)
    marks: dict[tuple[int, str], Marks] = field(default_factory=dict)
    _looks: dict[tuple[int, str], Look] = field(default_factory=dict)
    _listed: set[str] = field(default_factory=set)
    _is_listed: bool = False

    def __post_init__(self) -> None:
        """The account's counters are there from the start."""
        growth: Growth = Counter()
        for result in RESULTS:
            add(growth, "account", "account_tasks_completed_total", 0, result=result)
        for tasks in ("preparation_tasks", "release_tasks", "tasks"):
            for category in ALL_CATEGORIES:
                add(growth, "account", f"account_{tasks}_failed_total", 0, category=category)
        self._grow(None, growth, self.must, self.may)

    async def __call__(
        self, request: web.Request, call: Call, proceed: Proceed
    ) -> web.StreamResponse:
        """Let a request pass, and note what was answered."""
        try:
            response = await proceed()
        except BatchError as error:
            if error.code.endswith("NotSpecified"):  # nothing is prepared on the nodes
                self._answered(call, b"")
            raise
        if (body := body_of(response)) is not None:
            self._answered(call, body)
        return response

    def _answered(self, call: Call, body: bytes) -> None:
        is_whole = b"odata.nextLink" not in body
        if call.operation == "Job_List":
            jobs = self.world.jobs.values()
            self._listed |= {job.id.lower() for job in jobs if f'"{job.id}"'.encode() in body}
            if is_whole:
                self._is_listed = True
                self.known |= {job_id: self.world.find_job(job_id) for job_id in self._listed}
        elif call.operation in COLLECTORS and is_whole:
            job = self.world.find_job(call.ids[0])
            assert job is not None
            believed = self.known.get(job.id.lower(), job)
            is_full = "$filter" not in call.parameters
            self._looks[job.number, call.operation] = Look(
                job, believed.number, call.operation, is_full
            )

    def end_round(self, written: Written | None = None) -> None:
        """Count what was seen. `written`: what is left of it, where the process was killed."""
        looks, listed = list(self._looks.values()), self._is_listed
        fresh = {(look.job.number, COLLECTORS[look.operation]) for look in looks}
        shown = self._listed
        self._looks, self._listed, self._is_listed = {}, set(), False
        if listed and self.first_listing is None and (written is None or written.is_watched):
            self.first_listing = self.last_listing = self.world.tick
            self.before_watch = {job.number for job in self.world.jobs.values()}
        if self.first_listing is None:
            return
        for look in looks:
            part = look.job.id.lower(), COLLECTORS[look.operation]
            if written is None or part in written.readings:
                self._look(look)
        for number in {look.job.number for look in looks} & self.sure.keys():
            asked = [look.operation for look in looks if look.job.number == number]
            self.sure[number].end_round(asked, self.mishaps)
        if listed and written is None:
            if not self.mishaps.kind:
                self._check_all_asked(shown, fresh)
            self.last_listing = self.world.tick

    def is_new(self, job: Any) -> bool:
        """Whether all that a job did is to be counted."""
        assert self.first_listing is not None
        return job.created >= self.first_listing and job.number not in self.before_watch

    def _check_all_asked(self, shown: set[str], fresh: set[tuple[int, str]]) -> None:
        """Check that each job that shows something new was asked about."""
        for job in self.world.jobs.values():
            seen = self.sure.get(job.number)
            is_due = job.state in WATCHED or (
                not seen.is_settled
                if seen is not None
                else self.is_new(job)
                and (job.state == "deleting" or (job.ended or 0) > self.last_listing)
            )
            collectors = set(COLLECTORS.values())
            if job.preparation is None and seen is not None:
                collectors &= {"task_counts", "tasks"} | (collectors - seen.looked_at)
            missed = {name for name in collectors if (job.number, name) not in fresh}
            assert not is_due or not missed, (job.id, job.number, job.state, missed)

    def _look(self, look: Look) -> None:
        job, collector = look.job, COLLECTORS[look.operation]
        shown = self._shown(look)
        growth: Growth = Counter()
        self._fold(self.seen.setdefault(job.number, Seen(job)), collector, shown, growth)
        self._grow(job, growth, self.may)
        if look.believed != job.number:
            # The counts of one job after those of another look like a correction.
            fell = "job", "job_task_count_regressions_total", frozenset[tuple[str, str]]()
            self._grow(job, Counter({fell: 1}), self.may)
            self.unsure.setdefault((job.number, collector), Counter()).update(growth)
            return
        if self.mishaps.kind == "missing":
            # What is missing just now does not tell that it was counted: it may be once more.
            self._grow(job, self.unsure.pop((job.number, collector), Counter()), self.may)
        # What was read before it was listed is not told from what came since. The larger number
        # counts, so what the service shows now is in it.
        sure: Growth = Counter()
        self._fold(self.sure.setdefault(job.number, Seen(job)), collector, shown, sure)
        self._grow(job, sure, self.must)

    def _fold(self, seen: Seen, collector: str, shown: list[Any], growth: Growth) -> None:
        # Of a job that is older than the watch, only what comes after is counted.
        counts = self.is_new(seen.job) or collector in seen.looked_at
        seen.looked_at.add(collector)
        if collector == "task_counts":
            seen.look_at_counts(growth, counts=counts)
        elif collector == "tasks":
            seen.look_at_tasks(growth, shown, counts=counts)
        else:
            seen.look_at_nodes(growth, shown, counts=counts)

    def _shown(self, look: Look) -> list[Any]:
        """The tasks, or nodes, that were shown; notes that they were."""
        job, operation = look.job, look.operation
        since = self._mark(look)
        if operation == TASKS:
            entities, times_of = job.tasks.values(), times_of_task
        elif operation == NODES:
            entities, times_of = job.records.values(), times_of_runs
        else:
            return []
        if since is not None:
            return self._changed(entities, times_of, since)
        return [
            each
            for each in entities
            if not self.mishaps.hides(
                operation, job.id, each.id if operation == TASKS else each.node_id
            )
        ]

    def _mark(self, look: Look) -> float | None:
        """Note that this is looked at; gives since when changes are asked for, or None for all."""
        now = self.world.now.timestamp()
        key = look.believed, look.operation
        before = self.marks.get(key)
        if look.is_full:
            self.marks[key] = Marks(now, now)
            return None
        assert before is not None
        assert now - before.listed_at < self.resync_interval
        self.marks[key] = Marks(now, before.listed_at)
        return before.read_at - OVERLAP

    def _changed(
        self, entities: Iterable[Any], times_of: Callable[[Any], list[int | None]], since: float
    ) -> list[Any]:
        """The entities that run or have changed since, as far as the index knows."""
        return [
            entity
            for entity in entities
            if (seen := self.world.index.seen(entity)) is not None
            and any(tick is None or tick >= since * SECOND for tick in times_of(seen))
        ]

    def _grow(self, job: Any, growth: Growth, *series: Series) -> None:
        own = {"job_group": self.group} if self.group else {}
        for (whose, name, labels), by in growth.items():
            more = {} if whose == "account" else own
            if whose == "job" and not own:
                more = {"job_id": job.id}
            key = f"azure_batch_{name}", labels | {("account", "simulated"), *more.items()}
            for each in series:
                each[key] = each.get(key, 0) + by

    def check(self) -> None:
        """What was seen is part of what truly happened."""
        ledger = self.world.ledger
        runs = {(e.job, e.node_id, e.kind, e.started): e.result for e in ledger.of(RunCompleted)}
        tasks = {(event.job, event.task_id): event.result for event in ledger.of(TaskCompleted)}
        for number, seen in self.seen.items():
            for (node_id, kind, started), result in seen.runs.items():
                assert runs[number, node_id, kind, started] == result
            for task_id, task in seen.tasks.items():
                assert task.result in (None, tasks.get((number, task_id)))
        # What was missing when its job was first seen looks new when it comes back.
        since = self.first_listing if "missing" not in self.mishaps.kinds else None
        for name, event in (
            ("preparation_task_retries", RunRetried),
            ("task_retries", TaskRetried),
            ("task_requeues", TaskRequeued),
        ):
            counted = sum(
                value
                for (of, _), value in self.may.items()
                if of == f"azure_batch_job_{name}_total"
            )
            happened = len(ledger.of(event, since_tick=since))
            assert counted <= happened, name
