"""Microsoft's own SDKs read the simulated account, and find in it exactly what the world holds."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from exporter.simulator import SCENARIOS, Clock, World, serve
from exporter.simulator.failure_texts import Failure
from exporter.simulator.model import Counts, Job, NodeRecord, Pool, Task
from exporter.simulator.special_tasks import Execution
from tests.tools import sdk_python

HERE = Path(__file__).parent

STATES = {
    "creating": "creating",
    "idle": "idle",
    "leaving_pool": "leavingPool",
    "offline": "offline",
    "preempted": "preempted",
    "rebooting": "rebooting",
    "reimaging": "reimaging",
    "running": "running",
    "start_task_failed": "startTaskFailed",
    "starting": "starting",
    "unknown": "unknown",
    "unusable": "unusable",
    "upgrading_os": "upgradingOS",
    "waiting_for_start_task": "waitingForStartTask",
}


def micro(tick: int | None) -> int | None:
    return None if tick is None else tick // 10


def counts(found: Counts) -> list[int]:
    return [found.active, found.running, found.completed, found.succeeded, found.failed]


def failure(found: Failure | None) -> list[Any] | None:
    if found is None:
        return None
    details = [list(pair) for pair in found.details]
    return [found.category.lower(), found.code, found.message, details]


def job(found: Job) -> dict[str, Any]:
    awaiting = found.state == "terminating" and found.awaiting_release
    return {
        "state": found.state,
        "priority": found.priority,
        "display_name": found.display_name,
        "pool_id": None if found.auto_pool else found.pool.id,
        "auto_pool": found.auto_pool,
        "execution_pool_id": found.pool.id,
        "created": micro(found.created),
        "changed": micro(found.state_changed),
        "started": micro(found.started),
        "ended": micro(found.ended),
        "reason": found.terminate_reason,
        "awaited": str(found.awaiting_release) if awaiting else None,
        "metadata": [list(pair) for pair in found.metadata],
        "prepares": found.preparation is not None,
        "releases": found.release is not None,
    }


def execution(found: Execution | None, *, release: bool) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "state": found.state,
        "started": micro(found.started),
        "ended": micro(found.ended),
        "exit_code": found.exit_code,
        "result": found.result,
        "failure": failure(found.failure),
        "retries": None if release else found.retry_count,
        "last_retry": micro(found.last_retry),
    }


def record(found: NodeRecord) -> dict[str, Any]:
    return {
        "pool_id": found.pool_id,
        "node_id": found.node_id,
        "preparation": execution(found.preparation, release=False),
        "release": execution(found.release, release=True),
    }


def task(found: Task) -> dict[str, Any]:
    return {
        "id": found.id,
        "state": found.state,
        "slots": found.required_slots,
        "created": micro(found.created),
        "changed": micro(found.state_changed),
        "started": micro(found.started),
        "ended": micro(found.ended),
        "exit_code": found.exit_code,
        "result": found.result,
        "failure": failure(found.failure),
        "retries": found.retry_count,
        "requeues": found.requeue_count,
        "last_retry": micro(found.last_retry),
        "last_requeue": micro(found.last_requeue),
        "node_id": None if found.node is None else found.node.id,
    }


def statistics(found: Task, tick: int) -> dict[str, Any]:
    numbers = found.statistics(tick)
    assert numbers is not None
    return {
        "user": pytest.approx(numbers.user_cpu_time / 1e7, abs=1e-6),
        "kernel": pytest.approx(numbers.kernel_cpu_time / 1e7, abs=1e-6),
        "wall": pytest.approx(numbers.wall_clock_time / 1e7, abs=1e-6),
        "wait": pytest.approx(numbers.wait_time / 1e7, abs=1e-6),
        "read_ops": numbers.read_iops,
        "write_ops": numbers.write_iops,
        "read_gib": numbers.read_io_gib,
        "write_gib": numbers.write_io_gib,
    }


def node_counts(found: Pool) -> dict[str, dict[str, int]]:
    return {
        kind: {name: of_kind.get(state, 0) for name, state in STATES.items()}
        | {"total": found.current(kind)}
        for kind, of_kind in found.node_counts.items()
    }


def pool(found: Pool) -> dict[str, Any]:
    return {
        "state": found.state,
        "allocation": found.allocation_state,
        "slots": found.slots_per_node,
        "current": [found.current("dedicated"), found.current("low_priority")],
        "target": [found.targets["dedicated"], found.targets["low_priority"]],
        "auto_scale": found.auto_scale,
    }


def account(world: World, with_stats: Task, *, colons: bool) -> dict[str, Any]:
    """The whole account as the SDKs' dumps have it; `colons`: jobs with one in their id, too."""
    jobs = {key: found for key, found in world.jobs.items() if colons or ":" not in key}
    prepared = [found for found in jobs.values() if found.preparation is not None]
    return {
        "jobs": {found.id: job(found) for found in jobs.values()},
        "got": {found.id: job(found) for found in list(jobs.values())[:3]},
        "counts": {found.id: counts(found.task_counts) for found in jobs.values()},
        "slots": {found.id: counts(found.task_slot_counts) for found in jobs.values()},
        "records": {found.id: [record(r) for r in found.records.values()] for found in prepared},
        "paged": {found.id: list(found.records) for found in prepared},
        "refused": {
            found.id: [409, "JobPreparationTaskOrReleaseTaskNotSpecified"]
            for found in jobs.values()
            if found.preparation is None
        },
        "tasks": {found.id: [task(t) for t in found.tasks.values()] for found in jobs.values()},
        "task": task(with_stats) | {"stats": statistics(with_stats, world.tick)},
        "node_counts": {found.id: node_counts(found) for found in world.pools.values()},
        "pools": {found.id: pool(found) for found in world.pools.values()},
        "failed": [
            t.id for found in jobs.values() for t in found.tasks.values() if t.result == "failure"
        ],
    }


async def run(python: Path, script: str, arguments: Sequence[str]) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(HERE / script),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 200)
    assert process.returncode == 0, errors.decode()
    found: dict[str, Any] = json.loads(output)
    return found


@pytest.mark.parametrize(
    ("version", "script", "kind"),
    [
        ("15.1.0", "sdk15_dump.py", ["sync"]),
        ("15.1.0", "sdk15_dump.py", ["aio"]),
        pytest.param("14.2.0", "sdk14_dump.py", [], marks=pytest.mark.full),
    ],
    ids=["15.1.0 sync", "15.1.0 aio", "14.2.0"],
)
async def test_the_sdk_finds_what_the_world_holds(
    version: str, script: str, kind: list[str]
) -> None:
    python = sdk_python(version)
    world = World(SCENARIOS["steady"], seed=11, jobs=24, nodes=12)
    started = next(
        t
        for found in world.jobs.values()
        for t in found.tasks.values()
        if t.state == "running" and ":" not in found.id
    )
    async with serve(world, Clock(world.now, speed=0)) as simulation:
        arguments = [simulation.endpoint, simulation.account_name, simulation.account_key]
        found = await run(python, script, [*arguments, *kind, started.job.id, started.id])
    # The asynchronous client cannot read those: see its script.
    expected = account(world, started, colons="aio" not in kind)
    assert set(found) == set(expected)
    for part, content in expected.items():
        assert found[part] == content, part
    # Every part had something in it that could have gone wrong.
    assert all(expected.values())
    assert any(":" in found.id for found in world.jobs.values())
    lists = simulation.requests["Job_ListPreparationAndReleaseTaskStatus"]
    assert lists > 2 * len(expected["records"]) + len(expected["refused"])
