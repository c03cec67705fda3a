"""Each scenario shows what it is for, and `steady` does not."""

from collections import Counter
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
    assert list(SCENARIOS) == ["steady", "prep-storm", "spot-eviction", "flaky-tasks"]
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


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_goes_on(name: str) -> None:
    world = World(SCENARIOS[name], seed=2, jobs=6, nodes=4)
    for _ in range(6):
        world.advance(world.now + timedelta(minutes=10))
        for check in CHECKS:
            check(world)
    assert len(world.jobs) == pytest.approx(6, abs=3)
