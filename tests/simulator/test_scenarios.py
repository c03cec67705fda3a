"""Each scenario shows what it is for, and `steady` does not."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from exporter.simulator import SCENARIOS, World, ticks
from exporter.simulator.ledger import (
    RunCompleted,
    TaskCompleted,
    TaskRequeued,
    TaskRetried,
    TaskReturned,
    TaskStarted,
)

from .test_ledger import check_counts
from .test_world import CHECKS


def world_of(name: str, minutes: float) -> World:
    """An account some minutes after its start; what must always hold was checked on the way."""
    world = World(SCENARIOS[name], seed=8, jobs=12, nodes=8, ledger=True)
    end = world.now + timedelta(minutes=minutes)
    while world.now < end:
        world.advance(world.now + timedelta(seconds=15))
        for check in CHECKS:
            check(world)
    check_counts(world)
    return world


def stuck_share(world: World, samples: int = 30) -> float:
    """Of active jobs, how many have tasks waiting, none running and none failed."""
    stuck = looked_at = 0
    for _ in range(samples):
        world.advance(world.now + timedelta(seconds=2))
        for job in world.jobs.values():
            if job.state == "active":
                counts = job.task_counts
                looked_at += 1
                stuck += counts.active > 0 and counts.running == 0 and counts.failed == 0
    return stuck / looked_at


def test_there_are_these() -> None:
    assert list(SCENARIOS) == [
        *("steady", "prep-storm", "spot-eviction", "flaky-tasks", "flaky-prep"),
        *("failing-release", "failing-tasks", "blocked-tasks", "large-tasks", "stalled"),
        *("unusable-nodes", "start-task-failed", "backlog", "leaked-jobs", "job-storms"),
        *("restless-users", "odd-records"),
    ]
    for name, scenario in SCENARIOS.items():
        assert scenario.name == name
        assert scenario.summary.endswith(".")
        assert len(scenario.summary) < 80


def test_a_prep_storm_leaves_every_task_waiting_and_none_failed() -> None:
    world = world_of("prep-storm", minutes=4)
    ledger, since = world.ledger, world.tick - 2 * ticks.MINUTE
    runs = ledger.of(RunCompleted, since_tick=since)
    assert {run.result for run in runs if run.kind == "preparation"} == {"failure"}
    assert len({run.node_id for run in runs}) > 5
    assert {run.category for run in runs} == {"UserError", "ServerError"}
    assert ledger.of(TaskReturned, since_tick=since)
    assert not ledger.of(TaskCompleted, since_tick=since)
    assert all(job.task_counts.failed == 0 for job in world.jobs.values())
    assert stuck_share(world) > 0.8
    # It worked before the image broke.
    assert len(ledger.of(TaskCompleted, until_tick=world.tick - 5 * ticks.MINUTE)) > 500


def test_steady_looks_like_no_storm() -> None:
    world = world_of("steady", minutes=4)
    since = world.tick - 2 * ticks.MINUTE
    runs = Counter(run.result for run in world.ledger.of(RunCompleted, since_tick=since))
    assert runs["success"] > 5 * runs["failure"]
    assert len(world.ledger.of(TaskCompleted, since_tick=since)) > 100
    assert stuck_share(world) < 0.2


def test_evictions_come_in_waves_and_have_nodes_prepared_again() -> None:
    world = world_of("spot-eviction", minutes=8)
    ledger = world.ledger
    requeued = Counter(event.tick // (15 * ticks.SECOND) for event in ledger.of(TaskRequeued))
    total, quarters = requeued.total(), range(min(requeued), max(requeued) + 1)
    assert total > 300
    worst = sum(sorted(requeued.values())[-len(quarters) // 5 :])
    assert worst > total * 0.6, "most of them fall into a fifth of the time"
    assert any(not event.first for event in ledger.of(TaskStarted))
    runs = Counter(
        (run.job, run.node_id) for run in ledger.of(RunCompleted) if run.kind == "preparation"
    )
    assert sum(times > 1 for times in runs.values()) > 20, "again on the same node"
    gone = [
        record for job in world.jobs.values() for record in job.records.values() if record.node.gone
    ]
    assert len(gone) > 5, "and on others in place of those that left"
    kinds = Counter(node.kind for pool in world.pools.values() for node in pool.nodes.values())
    assert kinds["low_priority"] > 3 * kinds["dedicated"] > 0


def test_steady_has_no_waves() -> None:
    evicted = len(world_of("spot-eviction", minutes=4).ledger.of(TaskRequeued))
    assert len(world_of("steady", minutes=4).ledger.of(TaskRequeued)) < evicted / 2


def test_flaky_tasks_fail_in_many_ways_and_are_retried() -> None:
    ledger = world_of("flaky-tasks", minutes=4).ledger
    completed = ledger.of(TaskCompleted)
    failed = [event for event in completed if event.result == "failure"]
    assert 0.1 < len(failed) / len(completed) < 0.6
    assert len(ledger.of(TaskRetried)) > len(completed) / 5
    assert {event.category for event in failed} == {"UserError", "ServerError"}
    assert len({event.code for event in failed}) >= 8
    assert {event.exit_code for event in failed} >= {None, 0, 1, 2, 137}


def shares_of_failure(world: World) -> dict[str, float]:
    """Of the runs that completed since the start, by kind, those that failed."""
    ended = [("task", event.result) for event in world.ledger.of(TaskCompleted)]
    ended += [(run.kind, run.result) for run in world.ledger.of(RunCompleted)]
    total = Counter(kind for kind, _ in ended)
    failed = Counter(kind for kind, result in ended if result == "failure")
    return {kind: failed[kind] / total[kind] for kind in total}


def test_flaky_preparation_fails_on_half_of_the_nodes_and_work_goes_on() -> None:
    world = world_of("flaky-prep", minutes=4)
    assert 0.3 < shares_of_failure(world)["preparation"] < 0.7
    recently = world.ledger.of(TaskCompleted, since_tick=world.tick - ticks.MINUTE)
    assert len(recently) > 50
    assert stuck_share(world) < 0.2


def test_most_release_tasks_fail_and_no_more_of_the_rest_than_elsewhere() -> None:
    shares = shares_of_failure(world_of("failing-release", minutes=4))
    assert shares["release"] > 0.8
    assert max(shares["preparation"], shares["task"]) < 0.2


def test_most_tasks_fail_in_both_categories() -> None:
    world = world_of("failing-tasks", minutes=2)
    assert shares_of_failure(world)["task"] > 0.8
    categories = {event.category for event in world.ledger.of(TaskCompleted)}
    assert categories >= {"UserError", "ServerError"}


def test_tasks_are_blocked_behind_the_one_that_failed() -> None:
    world = world_of("blocked-tasks", minutes=2)
    for job in world.jobs.values():
        first, *others = job.tasks.values()
        assert first.result == "failure"
        assert others and all(task.state == "active" for task in others)
        assert all(task.depends_on is first for task in others)
    assert {node.state for pool in world.pools.values() for node in pool.nodes.values()} >= {"idle"}


def test_tasks_run_when_the_one_they_depend_on_has_succeeded() -> None:
    settings = {"first_task_failure_share": 0.0, "warm_up": 0.0, "pipelines_only": True}
    world = World(replace(SCENARIOS["blocked-tasks"], **settings), jobs=2, nodes=4, ledger=True)
    world.advance(world.now + timedelta(minutes=5))
    first = {
        event.job: event.tick
        for event in world.ledger.of(TaskCompleted)
        if event.task_id.endswith("-0001")
    }
    started = [e for e in world.ledger.of(TaskStarted) if not e.task_id.endswith("-0001")]
    assert started
    assert all(event.tick >= first[event.job] for event in started)
    check_counts(world)


@pytest.mark.parametrize("name", ["large-tasks", "stalled"])
def test_tasks_wait_beside_idle_nodes_and_none_fails(name: str) -> None:
    world = world_of(name, minutes=4)
    assert stuck_share(world) == 1.0
    nodes = [node.state for pool in world.pools.values() for node in pool.nodes.values()]
    assert nodes.count("idle") > len(nodes) / 2


def test_larger_than_a_node_are_the_large_tasks_alone() -> None:
    for name in ("large-tasks", "stalled"):
        world = World(SCENARIOS[name])
        for job in world.jobs.values():
            for task in job.tasks.values():
                assert (task.required_slots > job.pool.slots_per_node) == (name == "large-tasks")


@pytest.mark.parametrize(
    ("name", "state"), [("unusable-nodes", "unusable"), ("start-task-failed", "startTaskFailed")]
)
def test_no_node_is_of_any_use(name: str, state: str) -> None:
    world = world_of(name, minutes=1)
    assert stuck_share(world) == 1.0
    assert {node.state for pool in world.pools.values() for node in pool.nodes.values()} == {state}


def test_a_backlog_is_worked_off_slowly() -> None:
    world = world_of("backlog", minutes=2)
    assert len(world.ledger.of(TaskCompleted, since_tick=world.tick - ticks.MINUTE)) > 50
    waiting = sum(job.task_counts.active for job in world.jobs.values())
    running = sum(job.task_counts.running for job in world.jobs.values())
    assert waiting > 50 * running > 0


def test_leaked_jobs_are_active_and_done() -> None:
    world = world_of("leaked-jobs", minutes=2)
    for job in world.jobs.values():
        assert job.state == "active"
        assert job.task_counts.completed == len(job.tasks) > 0


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_goes_on(name: str) -> None:
    world = World(SCENARIOS[name], seed=2, jobs=6, nodes=4)
    for _ in range(6):
        world.advance(world.now + timedelta(minutes=10))
        for check in CHECKS:
            check(world)
    assert sum(not job.extra for job in world.jobs.values()) == pytest.approx(6, abs=3)
