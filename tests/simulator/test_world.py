"""The simulated account's life: what must always hold, and what must happen in `steady`."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from exporter.simulator import SCENARIOS, World, ticks
from exporter.simulator.model import Counts, Job, Node, NodeRecord, Task

STEADY = SCENARIOS["steady"]
BUCKETS = {"active": 0, "preparing": 1, "running": 1}


def recount(job: Job, *, slots: bool) -> Counts:
    counted = [0, 0, 0, 0]
    for task in job.tasks.values():
        bucket = BUCKETS.get(task.state, 2 if task.result == "success" else 3)
        counted[bucket] += task.required_slots if slots else 1
    return Counts(*counted)


def tasks_of(world: World) -> list[Task]:
    return [task for job in world.jobs.values() for task in job.tasks.values()]


def records_of(world: World) -> list[NodeRecord]:
    return [record for job in world.jobs.values() for record in job.records.values()]


def nodes_of(world: World) -> list[Node]:
    return [node for pool in world.pools.values() for node in pool.nodes.values()]


def fingerprint(world: World) -> list[object]:
    """Everything that a response could show."""
    return [
        world.tick,
        *(
            (job.id, job.state, job.state_changed, job.modified, job.task_counts, job.metadata)
            for job in world.jobs.values()
        ),
        *(
            (task.id, task.state, task.state_changed, task.started, task.exit_code, task.weight)
            for task in tasks_of(world)
        ),
        *(
            (record.node_id, record.preparation.started, record.preparation.result)
            for record in records_of(world)
        ),
        *((node.id, node.state, node.free) for node in nodes_of(world)),
    ]


def check_counts(world: World) -> None:
    for job in world.jobs.values():
        assert job.task_counts == recount(job, slots=False)
        assert job.task_slot_counts == recount(job, slots=True)
        assert job.task_counts.completed == job.task_counts.succeeded + job.task_counts.failed


def check_nodes(world: World) -> None:
    for node in nodes_of(world):
        used = sum(task.required_slots for task in node.tasks)
        assert 0 <= used <= node.pool.slots_per_node
        assert node.free == node.pool.slots_per_node - used
        assert all(task.node is node and task.bucket == 1 for task in node.tasks)
        if node.tasks:
            assert node.state == "running"
    for pool in world.pools.values():
        for kind, counts in pool.node_counts.items():
            states = Counter(node.state for node in pool.nodes.values() if node.kind == kind)
            assert {state: number for state, number in counts.items() if number} == states
            assert pool.current(kind) == states.total()


def check_tasks(world: World) -> None:
    for task in tasks_of(world):
        if task.state in {"preparing", "running"}:
            assert task.node is not None
            assert task in task.node.tasks
        assert (task.result is not None) == (task.state == "completed") == (task.ended is not None)
        silent = not task.result_shown and task.exit_code
        assert (task.failure is not None) == (task.result == "failure" and not silent)
        assert task.retry_count <= task.max_retries
        assert (task.retry_count > 0) == (task.last_retry is not None)
        assert (task.requeue_count > 0) == (task.last_requeue is not None)
        if task.state == "active":
            assert task.started is None and task.node is None


def check_preparation(world: World) -> None:
    for job in world.jobs.values():
        if job.preparation is None:
            assert not job.records
            continue
        for task in job.tasks.values():
            if task.state == "running" and task.node is not None:
                # No task runs on a node where preparation did not go before it.
                record = job.records[task.node.id]
                assert record.preparation.state == "completed"
                assert not record.blocked
            if task.state == "preparing" and task.node is not None:
                assert task in job.records[task.node.id].waiting
        for record in job.records.values():
            assert record.preparation.retry_count <= job.preparation.max_retries
            running = record.preparation.state == "running"
            assert running == (record.preparation.result is None)
            if record.blocked:
                assert record.preparation.result == "failure"
                assert job.preparation.wait_for_success
            if job.state == "completed":
                assert not running
                assert record.release is None or record.release.state == "completed"
            if record.release is not None:
                assert job.release is not None
                assert job.state in {"terminating", "completed", "deleting"}


def is_held(task: Task) -> bool:
    """It depends on a task that has not succeeded."""
    parent = task.depends_on
    return task.state == "active" and parent is not None and parent.result != "success"


def check_no_work_is_left_lying(world: World) -> None:
    for job in world.jobs.values():
        if job.state != "active":
            continue
        held = [task for task in job.tasks.values() if is_held(task)]
        assert len(job.queue) == job.task_counts.active - len(held)
        assert not set(job.queue) & set(held)
        if world.scenario.scheduling_stops_after is not None:
            continue
        for node in job.pool.nodes.values():
            record = job.records.get(node.id)
            blocked = record is not None and record.blocked
            fits = any(task.required_slots <= job.pool.slots_per_node for task in job.queue)
            if fits and node.up and not blocked:
                assert node.tasks, "an idle node could run the job's tasks"


@dataclass
class Seen:
    """What came up while the account lived on."""

    job_states: set[str] = field(default_factory=set)
    node_states: set[str] = field(default_factory=set)
    reasons: set[str | None] = field(default_factory=set)
    allocation: set[str] = field(default_factory=set)
    task: Counter[str] = field(default_factory=Counter)
    record: Counter[str] = field(default_factory=Counter)
    job: Counter[str] = field(default_factory=Counter)
    first_ids: set[str] = field(default_factory=set)
    last_ids: set[str] = field(default_factory=set)
    returned_ids: set[str] = field(default_factory=set)

    def look(self, world: World) -> None:
        for job in world.jobs.values():
            self.job_states.add(job.state)
            self.reasons.add(job.terminate_reason)
        for pool in world.pools.values():
            self.allocation.add(pool.allocation_state)
        self.node_states |= {node.state for node in nodes_of(world)}

    def look_closely(self, world: World, records: dict[NodeRecord, int]) -> None:
        for job in world.jobs.values():
            self.job["auto pool"] += job.auto_pool
            self.job["no preparation"] += job.preparation is None
            self.job["preparation alone"] += job.preparation is not None and job.release is None
            self.job["later tasks"] += job.tasks_to_come > 0
            self.job["display name"] += job.display_name is not None
            self.job["colon"] += ":" in job.id
            self.job[f"metadata {bool(job.metadata)}"] += 1
        for task in tasks_of(world):
            self.task[task.state] += 1
            self.task["retried"] += task.retry_count > 0
            self.task["requeued"] += task.requeue_count > 0
            self.task["several slots"] += task.required_slots > 1
            self.task["ended unstarted"] += task.state == "completed" and task.started is None
            if task.failure is not None:
                self.task[task.failure.category] += 1
                self.task[task.failure.code] += 1
                self.task[f"failed with exit code {task.exit_code}"] += 1
        for record in records_of(world):
            self._look_at_record(record, records)

    def _look_at_record(self, record: NodeRecord, earlier: dict[NodeRecord, int]) -> None:
        preparation, release, asked = record.preparation, record.release, record.job.preparation
        self.record[f"preparation {preparation.result}"] += 1
        self.record["preparation retried"] += preparation.retry_count > 0
        self.record["node gone"] += record.node.gone
        self.record["blocked"] += record.blocked
        if preparation.failure is not None and asked is not None:
            self.record[f"preparation {preparation.failure.category}"] += 1
            self.record["runs in spite of failure"] += record.ready and not asked.wait_for_success
        if release is not None:
            self.record[f"release {release.result}"] += 1
            if release.failure is not None:
                self.record[f"release {release.failure.category}"] += 1
        before = earlier.setdefault(record, preparation.started)
        self.record["prepared again"] += (
            preparation.started > before and not preparation.retry_count
        )


CHECKS = (
    check_counts,
    check_nodes,
    check_tasks,
    check_preparation,
    check_no_work_is_left_lying,
)


@pytest.fixture(scope="module")
def seen() -> Seen:
    """Ten minutes of `steady` after its warm-up, the invariants checked on the way."""
    world = World(STEADY, seed=5, jobs=60, nodes=16)
    seen, records = Seen(), {}
    seen.first_ids = set(world.jobs)
    for half_second in range(1200):
        world.advance(world.now + timedelta(seconds=0.5))
        seen.look(world)
        if half_second % 30 == 0:
            for check in CHECKS:
                check(world)
            seen.look_closely(world, records)
    seen.last_ids = set(world.jobs)
    return seen


def test_jobs_come_go_and_pass_through_every_state(seen: Seen) -> None:
    assert seen.job_states == {
        "active", "disabling", "disabled", "enabling", "terminating", "completed", "deleting",
    }  # fmt: skip
    assert {None, "AllTasksComplete", "UserTerminate"} <= seen.reasons
    assert seen.last_ids - seen.first_ids
    assert seen.first_ids - seen.last_ids


def test_nodes_come_leave_and_fail(seen: Seen) -> None:
    assert seen.node_states >= {
        "creating", "starting", "waitingForStartTask", "startTaskFailed", "idle", "running",
        "rebooting", "reimaging", "preempted", "unusable", "offline", "unknown", "leavingPool",
    }  # fmt: skip
    assert seen.allocation == {"steady", "resizing"}


@pytest.mark.parametrize(
    "kind",
    ["auto pool", "no preparation", "preparation alone", "later tasks", "display name", "colon",
     "metadata True", "metadata False"],
)  # fmt: skip
def test_there_are_jobs_of_every_kind(seen: Seen, kind: str) -> None:
    assert seen.job[kind] > 0


@pytest.mark.parametrize(
    "kind",
    ["active", "preparing", "running", "completed", "retried", "requeued", "several slots",
     "ended unstarted", "UserError", "ServerError", "FailureExitCode", "TaskEnded", "BlobNotFound",
     "CommandProgramNotFound", "DiskFull", "FileUploadMiscError", "failed with exit code 1",
     "failed with exit code 0", "failed with exit code None"],
)  # fmt: skip
def test_tasks_meet_every_fate(seen: Seen, kind: str) -> None:
    assert seen.task[kind] > 0


@pytest.mark.parametrize(
    "kind",
    ["preparation None", "preparation success", "preparation failure", "preparation UserError",
     "preparation ServerError", "preparation retried", "prepared again", "blocked",
     "runs in spite of failure", "node gone", "release None", "release success",
     "release failure", "release UserError", "release ServerError"],
)  # fmt: skip
def test_preparation_and_release_meet_every_fate(seen: Seen, kind: str) -> None:
    assert seen.record[kind] > 0


def test_no_job_is_forgotten() -> None:
    world = World(STEADY, seed=9, jobs=40, nodes=12)
    for _ in range(12):
        world.advance(world.now + timedelta(minutes=10))
        assert len(world.jobs) == pytest.approx(40, abs=6)
        for job in world.jobs.values():
            assert world.tick - job.created < 20 * ticks.MINUTE
        for task in tasks_of(world):
            if task.state in {"preparing", "running"}:
                assert world.tick - task.state_changed < 5 * ticks.MINUTE


def test_the_account_begins_with_a_history() -> None:
    world = World(STEADY, jobs=40, nodes=12)
    assert len(world.jobs) == pytest.approx(40, abs=5)
    assert {job.state for job in world.jobs.values()} >= {"active", "completed"}
    assert {task.result for task in tasks_of(world)} == {None, "success", "failure"}
    assert {record.preparation.result for record in records_of(world)} >= {"success", "failure"}
    assert any(record.release is not None for record in records_of(world))


def test_something_changes_every_second() -> None:
    world = World(STEADY)
    changed = 0
    for _ in range(60):
        before = fingerprint(world)[1:]
        world.advance(world.now + timedelta(seconds=1))
        changed += fingerprint(world)[1:] != before
    assert changed > 55


def test_the_same_seed_gives_the_same_account_in_whatever_steps() -> None:
    strides, leap = (World(STEADY, seed=3, jobs=20, nodes=8) for _ in range(2))
    end = leap.now + timedelta(seconds=240)
    leap.advance(end)
    stride = 0
    while strides.now < end:
        stride += 1
        strides.advance(min(end, strides.now + timedelta(milliseconds=137 * (stride % 11))))
    assert fingerprint(strides) == fingerprint(leap)


def test_another_seed_gives_another_account() -> None:
    first, second = (World(STEADY, seed=seed, jobs=5, nodes=4) for seed in (1, 2))
    assert fingerprint(first) != fingerprint(second)


def test_time_in_the_past_changes_nothing() -> None:
    world = World(STEADY, jobs=5, nodes=4)
    before = fingerprint(world)
    world.advance(world.now - timedelta(hours=1))
    assert fingerprint(world) == before


def test_a_node_whose_preparation_failed_gets_no_task_of_the_job() -> None:
    hopeless = replace(
        STEADY,
        preparation_share=1.0,
        preparation_failure_share=1.0,
        wait_for_success_share=1.0,
        node_incident_interval=1e9,
        auto_scale_pools=0,
        auto_pool_share=0.0,
        job_terminate_share=0.0,
        ended_unstarted_share=0.0,
    )
    world = World(hopeless, jobs=3, nodes=4)
    world.advance(world.now + timedelta(seconds=300))
    for job in world.jobs.values():
        assert job.state in {"active", "disabled"}
        assert all(record.blocked for record in job.records.values())
        assert job.task_counts == Counts(len(job.tasks), 0, 0, 0)
    assert len(records_of(world)) == 3 * 4


def test_tasks_run_after_a_failed_preparation_that_need_not_succeed() -> None:
    lenient = replace(
        STEADY,
        preparation_share=1.0,
        preparation_failure_share=1.0,
        wait_for_success_share=0.0,
        preparation_retries=(0, 0),
    )
    world = World(lenient, jobs=3, nodes=4)
    assert {record.preparation.result for record in records_of(world)} <= {"failure", None}
    assert sum(job.task_counts.succeeded for job in world.jobs.values()) > 0


def test_a_job_past_its_time_limit_ends_with_its_active_tasks_still_active() -> None:
    short = replace(STEADY, job_max_wall_clock=20.0, job_retention=(1e6, 1e6))
    world = World(short, jobs=6, nodes=1)
    ended = [job for job in world.jobs.values() if job.state == "completed"]
    assert any(job.terminate_reason == "MaxWallClockTimeExpiry" for job in ended)
    assert any(job.task_counts.active > 0 for job in ended)
    ended_by_limit = [
        task
        for task in tasks_of(world)
        if task.failure is not None and task.failure.code == "TaskEnded" and task.exit_code
    ]
    assert {(task.failure.category, task.exit_code) for task in ended_by_limit if task.failure} == {
        ("ServerError", -1073741510)
    }


def test_a_job_waits_in_terminating_for_its_release_tasks() -> None:
    slow = replace(
        STEADY, preparation_share=1.0, release_share=1.0, release_median=60.0, release_spread=0.01
    )
    world = World(slow, jobs=8, nodes=6)
    terminating: list[Job] = []
    for _ in range(60):
        world.advance(world.now + timedelta(seconds=5))
        terminating = [job for job in world.jobs.values() if job.awaiting_release]
        if terminating:
            break
    assert terminating
    for job in terminating:
        assert job.state == "terminating"
        running = [r for r in job.records.values() if r.release and r.release.state == "running"]
        assert job.awaiting_release == len(running) > 0
        assert all(record.node.up for record in running)


def test_ids_are_found_in_any_case(old_world: World) -> None:
    job = next(iter(old_world.jobs.values()))
    task = next(iter(job.tasks.values()))
    pool = next(iter(old_world.pools.values()))
    assert old_world.find_job(job.id.upper()) is job
    assert old_world.find_task(job, task.id.upper()) is task
    assert old_world.find_pool(pool.id.upper()) is pool
    assert old_world.find_job("nope") is None


def test_statistics_of_a_task_add_up(old_world: World) -> None:
    ended = next(task for task in tasks_of(old_world) if task.started and task.ended)
    assert ended.started is not None and ended.ended is not None
    found = ended.statistics(old_world.tick)
    assert found is not None
    assert found.wall_clock_time == ended.ended - ended.started
    assert found.wait_time == ended.started - ended.created
    assert 0 < found.user_cpu_time + found.kernel_cpu_time <= found.wall_clock_time
    waiting = next(task for task in tasks_of(old_world) if task.started is None)
    assert waiting.statistics(old_world.tick) is None
