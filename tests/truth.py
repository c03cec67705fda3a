"""What must be exposed of a simulated account, computed from its own objects.

Written against the contract, and nothing of the exporter is used: a mistake would have to be made
twice to go unseen. Values are by (name, labels).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from exporter.simulator import World

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]

JOB_STATES = ("active", "disabling", "disabled", "enabling", "terminating", "completed", "deleting")
NODE_STATES = (
    "creating",
    "deallocated",
    "deallocating",
    "idle",
    "leavingpool",
    "offline",
    "preempted",
    "rebooting",
    "reimaging",
    "running",
    "starting",
    "starttaskfailed",
    "unknown",
    "unusable",
    "upgradingos",
    "waitingforstarttask",
)
CATEGORIES = ("usererror", "servererror")
END_REASONS = (
    *("alltaskscomplete", "taskfailed", "maxwallclocktimeexpiry", "jmcomplete"),
    *("terminatejobschedule", "user", "deleted", "none"),
)
ON_NODES = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
BOUNDS = {
    "preparation_task_duration_seconds": ON_NODES,
    "release_task_duration_seconds": ON_NODES,
    "task_run_seconds": (1, 5, 15, 60, 300, 900, 3600, 10800, 21600, 86400, 259200, 604800),
    "task_wait_seconds": (1, 5, 15, 30, 60, 120, 300, 900, 3600, 10800, 43200, 86400),
}


class Truth:
    """Collects series of one account."""

    def __init__(self, world: World, account: str, now: float) -> None:
        self.series: Series = {}
        self._world = world
        self._account = account
        self._now = now

    def add(self, name: str, value: float, **labels: str) -> None:
        key = (f"azure_batch_{name}", frozenset({"account": self._account, **labels}.items()))
        assert key not in self.series
        self.series[key] = value

    def everything(self) -> Series:
        """All families but the exporter's own."""
        self.add("up", 1)
        for collector in ("jobs", "pool_nodes"):
            self.add("account_scrape_success", 1, collector=collector)
            self.add(
                "account_last_scrape_success_timestamp_seconds", self._now, collector=collector
            )
        states = Counter(job.state for job in self._world.jobs.values())
        for state in JOB_STATES:
            self.add("jobs", states[state], state=state)
        self.add("jobs_dropped", 0)
        self._counted()
        self._histograms()
        for job in self._world.jobs.values():
            self._job(job)
        for pool in self._world.pools.values():
            for kind in ("dedicated", "low_priority"):
                nodes = Counter(n.state.lower() for n in pool.nodes.values() if n.kind == kind)
                for state in NODE_STATES:
                    self.add("pool_nodes", nodes[state], pool_id=pool.id, kind=kind, state=state)
        return self.series

    def _counted(self) -> None:
        """What was there before the first look is not counted."""
        for result in ("success", "failure"):
            self.add("account_tasks_completed_total", 0, result=result)
        for kind in ("preparation_tasks", "release_tasks", "tasks"):
            for category in (*CATEGORIES, "unknown"):
                self.add(f"account_{kind}_failed_total", 0, category=category)
        for reason in END_REASONS:
            self.add("jobs_ended_total", 0, reason=reason)

    def _job(self, job: Any) -> None:
        def add(name: str, value: float, **labels: str) -> None:
            self.add(f"job_{name}", value, job_id=job.id, **labels)

        add("info", 1, display_name=job.display_name or "", pool_id=job.pool.id)
        for state in JOB_STATES:
            add("state", int(state == job.state), state=state)
        add("priority", job.priority)
        add("uses_task_dependencies", int(job.uses_dependencies))
        for name, tick in (
            ("created", job.created),
            ("started", job.started),
            ("ended", job.ended),
        ):
            if tick is not None:
                add(f"{name}_timestamp_seconds", seconds(tick))
        self._tasks(job)
        self._each_task(job)
        # What was there before the first look is not counted.
        for result in ("success", "failure"):
            add("tasks_completed_total", 0, result=result)
        for name in ("tasks_started", "tasks_added", "task_count_regressions"):
            add(f"{name}_total", 0)
        add("last_progress_timestamp_seconds", self._now)
        for collector in ("task_counts", "preparation_release", "tasks"):
            add("scrape_success", 1, collector=collector)
            add("last_scrape_success_timestamp_seconds", self._now, collector=collector)
        if job.preparation is None:
            return
        records = list(job.records.values())
        for pool_id in {record.pool_id for record in records} | {job.pool.id}:
            here = [record for record in records if record.pool_id == pool_id]
            self._runs(job.id, pool_id, "preparation", [record.preparation for record in here])
            releases = [record.release for record in here if record.release]
            self._runs(job.id, pool_id, "release", releases)

    def _tasks(self, job: Any) -> None:
        tasks, slots = Counter[str](), Counter[str]()
        for task in job.tasks.values():
            state = {"preparing": "running"}.get(task.state, task.state)
            for counts, size in ((tasks, 1), (slots, task.required_slots)):
                counts[state] += size
                if task.result:
                    counts[task.result] += size
        for suffix, counts in (("tasks", tasks), ("task_slots", slots)):
            for state in ("active", "running", "completed"):
                self.add(f"job_{suffix}", counts[state], job_id=job.id, state=state)
            for result in ("success", "failure"):
                name = f"job_completed_{suffix}"
                self.add(name, counts[result], job_id=job.id, result=result)

    def _each_task(self, job: Any) -> None:
        def add(name: str, value: float, **labels: str) -> None:
            self.add(f"job_{name}", value, job_id=job.id, **labels)

        for category in (*CATEGORIES, "unknown"):
            add("tasks_failed_total", 0, category=category)
        for name in ("task_retries", "task_requeues"):
            add(f"{name}_total", 0)
        tasks = list(job.tasks.values())
        failures = Counter(
            (task.failure.category.lower(), task.failure.code)
            for task in tasks
            if task.state == "completed" and task.result == "failure"
        )
        for (category, code), number in failures.items():
            assert category in CATEGORIES
            add("failed_tasks", number, category=category, code=code)
        created = [task.created for task in tasks if task.state == "active"]
        if created:
            add("oldest_active_task_created_timestamp_seconds", seconds(min(created)))
        started = [task.started for task in tasks if task.state == "running"]
        if started:
            add("oldest_running_task_start_timestamp_seconds", seconds(min(started)))

    def _histograms(self) -> None:
        jobs = self._world.jobs.values()
        pools = {job.pool.id for job in jobs if job.preparation} | {
            record.pool_id for job in jobs if job.preparation for record in job.records.values()
        }
        families = [(f"{kind}_task_duration_seconds", pools) for kind in ("preparation", "release")]
        families += [(f"task_{kind}_seconds", {""}) for kind in ("run", "wait")] if jobs else []
        for name, where in families:
            for pool_id in where:
                labels = {"pool_id": pool_id} if pool_id else {}
                for bound in (*(str(float(bound)) for bound in BOUNDS[name]), "+Inf"):
                    self.add(f"{name}_bucket", 0, le=bound, **labels)
                self.add(f"{name}_count", 0, **labels)
                self.add(f"{name}_sum", 0, **labels)

    def _runs(self, job_id: str, pool_id: str, kind: str, runs: list[Any]) -> None:
        def add(name: str, value: float, **labels: str) -> None:
            self.add(f"job_{kind}_{name}", value, job_id=job_id, pool_id=pool_id, **labels)

        states = Counter(run.state for run in runs)
        results = Counter(run.result for run in runs if run.state == "completed")
        for state in ("running", "completed"):
            add("tasks", states[state], state=state)
        for result in ("success", "failure"):
            add("completed_tasks", results[result], result=result)
        for result in ("success", "failure"):
            add("tasks_completed_total", 0, result=result)
        for category in (*CATEGORIES, "unknown"):
            add("tasks_failed_total", 0, category=category)
        if kind == "preparation":
            add("task_retries_total", 0)
        failures = Counter(
            (run.failure.category.lower(), run.failure.code)
            for run in runs
            if run.state == "completed" and run.result == "failure"
        )
        for (category, code), number in failures.items():
            assert category in CATEGORIES
            add("failed_tasks", number, category=category, code=code)
        starts = [run.started for run in runs if run.state == "running"]
        if starts:
            add("oldest_running_start_timestamp_seconds", seconds(min(starts)))


def seconds(tick: int) -> float:
    """Unix time of a tick (100 ns), cut to the microsecond."""
    return tick // 10 / 1e6
