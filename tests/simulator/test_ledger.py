"""The ledger of true events against the account's own state, from its first event on."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from exporter.simulator import SCENARIOS, World
from exporter.simulator.ledger import (
    Event,
    JobCreated,
    JobGone,
    Ledger,
    RunCompleted,
    RunEvent,
    RunRetried,
    RunStarted,
    TaskAdded,
    TaskCompleted,
    TaskDeleted,
    TaskEvent,
    TaskRequeued,
    TaskRetried,
    TaskReturned,
    TaskStarted,
)
from exporter.simulator.special_tasks import Execution

from .test_world import fingerprint

STEADY = SCENARIOS["steady"]


@pytest.fixture(scope="module")
def world() -> World:
    """Some minutes of an account; only to be read."""
    world = World(STEADY, seed=11, jobs=20, nodes=8, ledger=True)
    world.advance(world.now + timedelta(seconds=180))
    return world


def number_of(ledger: Ledger, kind: type[Event], **what: object) -> Counter[int]:
    """How many events of a type there are of each job, of those whose attributes are `what`."""
    return Counter(
        event.job
        for event in ledger.of(kind)
        if all(getattr(event, name) == value for name, value in what.items())
    )


def check_counts(world: World) -> None:
    ledger = world.ledger
    added, deleted = number_of(ledger, TaskAdded), number_of(ledger, TaskDeleted)
    begun = number_of(ledger, TaskStarted) + number_of(ledger, TaskCompleted, from_active=True)
    undone = number_of(ledger, TaskRequeued) + number_of(ledger, TaskReturned) + deleted
    for job in world.jobs.values():
        counts, number = job.task_counts, job.number
        assert counts.active + counts.running + counts.completed == added[number] - deleted[number]
        assert counts.running + counts.completed == begun[number] - undone[number]
        for result, count in (("success", counts.succeeded), ("failure", counts.failed)):
            completed = number_of(ledger, TaskCompleted, result=result)[number]
            assert count == completed - number_of(ledger, TaskDeleted, result=result)[number]


def test_the_task_counts_are_the_sum_of_the_events(world: World) -> None:
    check_counts(world)


def test_retries_and_requeues_are_what_the_tasks_count(world: World) -> None:
    for kind, attribute in ((TaskRetried, "retry_count"), (TaskRequeued, "requeue_count")):
        noted = Counter((event.job, event.task_id) for event in world.ledger.of(kind))
        shown = Counter(
            {
                (job.number, task.id): getattr(task, attribute)
                for job in world.jobs.values()
                for task in job.tasks.values()
            }
        )
        numbers = {job.number for job in world.jobs.values()}
        assert +shown == Counter({key: n for key, n in noted.items() if key[0] in numbers})
        assert shown.total() > 0


def test_a_task_starts_for_the_first_time_once(world: World) -> None:
    starts = world.ledger.of(TaskStarted)
    first = Counter((event.job, event.task_id) for event in starts if event.first)
    assert set(first.values()) == {1}
    again = {(event.job, event.task_id) for event in starts if not event.first}
    assert again
    assert again <= first.keys()


def test_completions_carry_what_the_record_has(world: World) -> None:
    completed = {(event.job, event.task_id): event for event in world.ledger.of(TaskCompleted)}
    assert len(completed) == len(world.ledger.of(TaskCompleted))
    unstarted = 0
    for job in world.jobs.values():
        for task in job.tasks.values():
            event = completed.get((job.number, task.id))
            assert (event is not None) == (task.state == "completed")
            if event is None:
                continue
            assert (event.tick, event.result) == (task.ended, task.result)
            assert event.exit_code == task.exit_code
            assert (event.category, event.code) == (
                (task.failure.category, task.failure.code) if task.failure else (None, None)
            )
            assert task.ended is not None
            if task.started is None:
                assert (event.run, event.wait) == (None, None)
                unstarted += event.from_active
            else:
                assert event.run == task.ended - task.started
                assert event.wait == task.started - task.created
                assert not event.from_active
    assert unstarted


def test_every_run_that_completes_is_noted_once_as_it_can_be_seen() -> None:
    scenario = replace(STEADY, preparation_failure_share=0.2, release_failure_share=0.2)
    world = World(scenario, seed=6, jobs=12, nodes=8, ledger=True)
    ledger, seen = world.ledger, set[RunCompleted]()
    began = world.tick
    for _ in range(1200):
        before = world.tick
        world.advance(world.now + timedelta(seconds=0.25))
        now: dict[tuple[object, ...], Execution] = {}
        for job in world.jobs.values():
            for record in job.records.values():
                for kind, execution in (
                    ("preparation", record.preparation), ("release", record.release),
                ):  # fmt: skip
                    if execution is not None and execution.state == "completed":
                        now[job.number, record.node_id, kind, execution.started] = execution
        for event in ledger.of(RunCompleted, since_tick=before):
            execution = now[event.job, event.node_id, event.kind, event.started]
            assert (execution.ended, execution.result) == (event.ended, event.result)
            assert (execution.exit_code, execution.retry_count) == (
                event.exit_code, event.retry_count,
            )  # fmt: skip
            assert event.tick == event.ended > before
            seen.add(event)
    assert seen == set(ledger.of(RunCompleted, since_tick=began))
    everything = ledger.of(RunCompleted)
    keys = {(event.job, event.node_id, event.kind, event.started) for event in everything}
    assert len(keys) == len(everything)
    assert {(event.kind, event.result) for event in everything} == {
        (kind, result) for kind in ("preparation", "release") for result in ("success", "failure")
    }
    assert {event.category for event in everything} == {None, "UserError", "ServerError"}
    assert sum(event.retry_count for event in everything) <= len(ledger.of(RunRetried))
    assert any(event.retry_count for event in everything)


def test_jobs_come_and_go_in_the_ledger(world: World) -> None:
    created = {event.job: event for event in world.ledger.of(JobCreated)}
    gone = {event.job: event for event in world.ledger.of(JobGone)}
    assert gone
    assert all(created[number].job_id == event.job_id for number, event in gone.items())
    assert created.keys() - gone.keys() == {job.number for job in world.jobs.values()}
    for job in world.jobs.values():
        assert (created[job.number].tick, created[job.number].job_id) == (job.created, job.id)


def test_events_are_found_by_type_time_and_job(world: World) -> None:
    ledger = world.ledger
    events = ledger.events
    assert ledger.of(Event) == events
    assert ledger.of(TaskEvent) == [event for event in events if isinstance(event, TaskEvent)]
    assert ledger.of(RunEvent) == [event for event in events if isinstance(event, RunEvent)]
    ticks = [event.tick for event in events]
    assert ticks == sorted(ticks)
    middle = events[len(events) // 2]
    early = ledger.of(Event, until_tick=middle.tick)
    late = ledger.of(Event, since_tick=middle.tick)
    assert early + late == events
    assert middle in early
    window = ledger.of(TaskAdded, since_tick=world.tick - 10**9, until_tick=world.tick, job=3)
    assert window == [
        event
        for event in events
        if isinstance(event, TaskAdded) and event.job == 3 and event.tick > world.tick - 10**9
    ]


def test_keeping_a_ledger_does_not_change_the_account() -> None:
    with_ledger, without = (World(STEADY, seed=3, jobs=8, nodes=4, ledger=on) for on in (1, 0))
    assert fingerprint(with_ledger) == fingerprint(without)
    assert with_ledger.ledger.of(TaskCompleted)
    with pytest.raises(ValueError, match="ledger=True"):
        _ = without.ledger


def test_a_completed_run_is_shown_until_another_begins_or_its_job_is_gone() -> None:
    scenario = replace(STEADY, node_incident_interval=60.0, job_retention=(5.0, 20.0))
    world = World(scenario, seed=6, jobs=12, nodes=8, ledger=True)
    began, seen_until = world.tick, dict[RunCompleted, int]()
    for _ in range(800):
        world.advance(world.now + timedelta(seconds=0.25))
        shown = {
            (job.number, record.node_id, execution.started)
            for job in world.jobs.values()
            for record in job.records.values()
            for execution in (record.preparation, record.release)
            if execution is not None and execution.state == "completed"
        }
        for run in world.ledger.of(RunCompleted, since_tick=began):
            if (run.job, run.node_id, run.started) in shown:
                seen_until[run] = world.tick
    overwritten = gone = 0
    for run, until in world.ledger.shown_until().items():
        if run.tick <= began:
            continue
        if until is None:
            assert seen_until[run] == world.tick
        else:
            assert until - seen_until[run] <= 0.25 * 10**7
            alive = any(job.number == run.job for job in world.jobs.values())
            overwritten += alive
            gone += not alive
    assert overwritten > 5
    assert gone > 5


def test_every_completed_run_began_as_noted(world: World) -> None:
    begun = {
        (run.job, run.node_id, run.kind, run.started, run.retry_count)
        for run in world.ledger.of(RunStarted)
    }
    for run in world.ledger.of(RunCompleted):
        assert (run.job, run.node_id, run.kind, run.started, run.retry_count) in begun
    assert len(begun) > len(world.ledger.of(RunCompleted))
