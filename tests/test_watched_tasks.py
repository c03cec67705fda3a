"""The collector `watched_tasks`: tasks that a rule names, one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exporter import collectors
from exporter.batch.client import BatchClient
from exporter.batch.errors import JobGone, ServiceError
from exporter.batch.models import Task
from exporter.batch.spellings import Spellings
from exporter.collectors import watched_tasks
from exporter.collectors.watched_tasks import Found, WatchedTasks, may_ask_by_etag
from exporter.exposition.body import Exposition, Format
from exporter.polling.selection import watch
from exporter.simulator import SCENARIOS, Clock, World, serve
from exporter.state.groups import Groups
from tests.fake_batch import FakeBatch, batch_error, reply
from tests.killable import Exporter
from tests.test_collectors import JOB, text
from tests.test_selection import job, rule
from tests.truth import Series, seconds

START = datetime(2026, 6, 1, 12, tzinfo=UTC)

RAN: dict[str, Any] = {
    "id": "merge",
    "eTag": "0x8D4",
    "state": "completed",
    "creationTime": "2026-01-01T09:00:00Z",
    "stateTransitionTime": "2026-01-01T10:00:30Z",
    "lastModified": "2026-01-01T10:00:30Z",
    "requiredSlots": 4,
    "executionInfo": {
        "startTime": "2026-01-01T10:00:00.5Z",
        "endTime": "2026-01-01T10:00:30Z",
        "exitCode": -1073741510,
        "result": "Failure",
        "failureInfo": {"category": "UserError", "code": "FailureExitCode", "message": "no"},
        "retryCount": 2,
        "requeueCount": 1,
    },
    "nodeInfo": {"nodeId": "tvm-1", "poolId": "pool-1"},
    "stats": {
        "lastUpdateTime": "2026-01-01T10:00:30Z",
        "userCPUTime": "PT1M0.5S",
        "kernelCPUTime": "PT0.25S",
        "wallClockTime": "PT29.5S",
        "waitTime": "P10675199DT2H48M5.4775807S",
        "readIOps": "123456789012",
        "writeIOps": "0",
        "readIOGiB": 1.5,
        "writeIOGiB": 0.0,
    },
}
NEVER_RAN: dict[str, Any] = {
    "id": "publish",
    "state": "active",
    "creationTime": "2026-01-01T09:00:00Z",
    "executionInfo": {"retryCount": 0, "requeueCount": 0},
    "nodeInfo": {},
}


def watched(*tasks: dict[str, Any], at: float = 0.0) -> WatchedTasks:
    found = [msgspec.convert(each, Task, strict=False) for each in tasks]
    return WatchedTasks({task.id: Found.of(task, at, Spellings()) for task in found})


def test_watched_tasks(golden: Callable[[str, str], None]) -> None:
    golden("watched_tasks.prom", text("watched_tasks", JOB, watched(RAN, NEVER_RAN)))


def test_watched_tasks_of_a_group(golden: Callable[[str, str], None]) -> None:
    """Two jobs of a pipeline have a task of this name each."""
    exposition = Exposition(collectors.tables())
    other = {**RAN, "state": "running", "executionInfo": {"startTime": "2026-01-01T10:00:00Z"}}
    members = (watched(RAN), watched(other))
    groups = Groups(exposition)
    for job_id, snapshot in zip(("job-1", "job-2"), members, strict=True):
        groups.put(("myaccount", ("job_group", "nf"), "watched_tasks"), job_id, snapshot)
    groups.flush()
    golden("watched_tasks_group.prom", exposition.body(Format.TEXT).plain.decode())


def test_a_duration_that_cannot_be_read_has_no_series_and_costs_no_other() -> None:
    odd = {**RAN, "stats": {**RAN["stats"], "userCPUTime": "P1Y", "waitTime": "soon"}}
    shown = text("watched_tasks", JOB, watched(odd))
    assert 'mode="kernel"} 0.25' in shown
    assert 'mode="user"' not in shown and "wait_seconds{" not in shown
    assert "wall_clock_seconds{" in shown


RULE = rule(id="job-1", tasks=("Merge", "publish"))
WATCHED = watch(job("job-1"), RULE)


async def read(client: BatchClient, state: WatchedTasks | None, now: float = 60.0) -> WatchedTasks:
    return await watched_tasks.read(client, WATCHED, state, now)


async def test_a_task_that_is_not_there_is_left_out(batch: FakeBatch, client: BatchClient) -> None:
    batch.json("/jobs/job-1/tasks/Merge", RAN)
    batch.on("/jobs/job-1/tasks/publish", batch_error(404, "TaskNotFound", "no such task"))
    state = await read(client, None)
    assert [found.task.id for found in state.found.values()] == ["merge"]  # as the service says
    query = batch.requests[0].query
    assert query["$expand"] == "stats"
    assert "commandLine" not in query["$select"] and "stats" in query["$select"]


async def test_a_job_that_is_not_there_is_gone(batch: FakeBatch, client: BatchClient) -> None:
    with pytest.raises(JobGone):
        await read(client, None)


async def test_what_did_not_change_is_not_read_again(batch: FakeBatch, client: BatchClient) -> None:
    batch.on("/jobs/job-1/tasks/Merge", reply(RAN), reply("", 304), reply(RAN))
    batch.json("/jobs/job-1/tasks/publish", NEVER_RAN)
    first = await read(client, None, 0.0)
    second = await read(client, first, 60.0)
    assert second == WatchedTasks(
        {
            "Merge": first.found["Merge"],
            "publish": dataclasses.replace(first.found["publish"], whole_at=60.0),
        }
    )
    conditions = [request.headers.get("If-None-Match") for request in batch.requests]
    # One that never left its first state has not shown that its eTag follows the state.
    assert conditions == [None, None, "0x8D4", None]
    third = await read(client, second, RULE.resync_interval)
    assert third.found["Merge"].whole_at == RULE.resync_interval
    assert batch.requests[-2].headers.get("If-None-Match") is None


async def test_a_304_that_was_not_asked_for_is_an_error(
    batch: FakeBatch, client: BatchClient
) -> None:
    batch.on("/jobs/job-1/tasks/Merge", reply("", 304))
    with pytest.raises(ServiceError, match="304"):
        await read(client, None)


async def test_a_failed_task_has_the_services_own_code_with_and_without_a_result(
    batch: FakeBatch, client: BatchClient
) -> None:
    failure = {"category": "ServerError", "code": "NewKind"}
    info = {**RAN["executionInfo"], "result": None, "failureInfo": failure}
    batch.json("/jobs/job-1/tasks/Merge", {**RAN, "executionInfo": info})
    batch.json("/jobs/job-1/tasks/publish", NEVER_RAN)
    state = await read(client, None)
    labels = 'account="myaccount",job_id="job-1",task_id="merge"'
    line = f'azure_batch_task_failure{{{labels},category="servererror",code="NewKind"}} 1\n'
    assert line in text("watched_tasks", JOB, state)
    # One that an earlier version saved has no code: it is read again, not asked for by its eTag.
    earlier = WatchedTasks(
        {name: Found(found.task, found.whole_at) for name, found in state.found.items()}
    )
    again = await read(client, earlier)
    assert again == state
    assert [request.headers.get("If-None-Match") for request in batch.requests] == [None] * 4


@pytest.mark.parametrize(
    ("changed", "may"),
    [
        ({}, True),
        ({"state": "active"}, True),  # it was requeued, and its eTag told
        ({"state": "running"}, False),  # retries and use change without another state
        ({"state": "preparing"}, False),
        ({"lastModified": "2026-01-01T09:00:00Z"}, False),  # the eTag did not follow the state
        ({"stateTransitionTime": "2026-01-01T09:00:00Z"}, False),  # still its first state
        ({"eTag": None}, False),
        ({"lastModified": None}, False),
        ({"stats": None}, False),  # they are yet to come
        ({"stats": {"lastUpdateTime": "2026-01-01T10:00:29Z"}}, False),
        ({"stats": None, "executionInfo": {"endTime": "2026-01-01T10:00:30Z"}}, True),
    ],
    ids=str,
)
def test_an_unchanged_etag_proves_something_or_nothing(changed: dict[str, Any], may: bool) -> None:
    (found,) = watched({**RAN, **changed}).found.values()
    assert may_ask_by_etag(found, 1.0, 900.0) is may
    assert not may_ask_by_etag(found, 900.0, 900.0)


# Against a simulated account


def true_values(world: World, ids: list[str], tick: int) -> Series:
    """What must be shown of these tasks of all selected jobs, by the simulator's own objects."""
    series: Series = {}
    for each in world.jobs.values():
        if each.state in ("completed", "deleting"):
            continue
        for task in (each.tasks[task_id] for task_id in ids if task_id in each.tasks):
            labels = {"account": "simulated", "job_id": each.id, "task_id": task.id}

            def add(
                name: str, value: float | None, of: dict[str, str] = labels, **more: str
            ) -> None:
                if value is not None:
                    series[f"azure_batch_task_{name}", frozenset({**of, **more}.items())] = value

            for state in ("active", "preparing", "running", "completed"):
                add("state", int(task.state == state), state=state)
            is_over = task.state == "completed"
            add("exit_code", task.exit_code if is_over else None)
            add("retries", task.retry_count)
            add("requeues", task.requeue_count)
            add("required_slots", task.required_slots)
            add("created_timestamp_seconds", seconds(task.created))
            add("started_timestamp_seconds", seconds(task.started) if task.started else None)
            add("ended_timestamp_seconds", seconds(task.ended) if task.ended else None)
            if task.failure is not None and is_over:
                category = task.failure.category.lower()
                add("failure", 1, category=category, code=task.failure.code)
            used = task.statistics(tick)
            if used is None:
                continue
            add("stats_cpu_seconds", used.user_cpu_time / 1e7, mode="user")
            add("stats_cpu_seconds", used.kernel_cpu_time / 1e7, mode="kernel")
            add("stats_wall_clock_seconds", used.wall_clock_time / 1e7)
            add("stats_wait_seconds", used.wait_time / 1e7)
            add("stats_read_ops", used.read_iops)
            add("stats_write_ops", used.write_iops)
            add("stats_read_bytes", round(used.read_io_gib * 2**30))
            add("stats_written_bytes", round(used.write_io_gib * 2**30))
    return series


@pytest.mark.parametrize("follows", [True, pytest.param(False, marks=pytest.mark.full)])
async def test_every_value_is_the_simulators_own_whether_the_etag_follows_the_state_or_not(
    follows: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scenario = dataclasses.replace(SCENARIOS["flaky-tasks"], etag_follows_task_state=follows)
    world = World(scenario, seed=5, jobs=6, nodes=4, start=START)
    ids = sorted({task_id for each in world.jobs.values() for task_id in list(each.tasks)[-9:]})
    clock = Clock(START, speed=0.0)
    families = {row.name for row in watched_tasks.METRICS}
    seen: set[str] = set()
    async with serve(world, clock) as simulation:
        monkeypatch.setenv("SIMULATED_KEY", simulation.account_key)
        exporter = Exporter(simulation, clock, tmp_path, f", tasks: {ids}", saves=False)
        await exporter.start()
        for _ in range(12):
            clock.advance(20.0)
            await exporter.round()
            await exporter.poll()  # discovery came after the polls of jobs that are new
            shown = {key: value for key, value in exporter.exposed().items() if key[0] in families}
            expected = true_values(world, ids, world.tick)
            wrong = {
                key: (shown.get(key), expected.get(key))
                for key in shown.keys() | expected.keys()
                if shown.get(key) != pytest.approx(expected.get(key), abs=1e-6)
            }
            assert wrong == {}
            seen |= {name for name, _ in shown}
        answers = exporter.answers("Task_Get")
        await exporter.stop()
    assert seen == families
    assert answers["200"] > 0
    # Nothing was saved by asking where the eTag tells nothing.
    assert (answers["304"] > 0) is follows
