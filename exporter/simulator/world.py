"""A Batch account in memory that lives by itself: the composition of the simulation."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import ceil
from random import Random
from typing import TypeVar

from exporter.simulator import job_life, node_life, oddities, schedule, task_life, ticks
from exporter.simulator.agenda import Agenda
from exporter.simulator.failure_texts import FAILURE_KINDS
from exporter.simulator.late_index import LateIndex
from exporter.simulator.ledger import Ledger
from exporter.simulator.model import Job, Pool, Task
from exporter.simulator.naming import pool_name
from exporter.simulator.scenario import Scenario
from exporter.simulator.state import State

_Entity = TypeVar("_Entity")

DEFAULT_START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


class World:
    """The account's jobs and pools, and the time they are at.

    The same scenario, seed, sizes and start give the same account at the same simulated time,
    in whatever steps it was advanced. At `start` it has the scenario's warm-up behind it.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        seed: int = 1,
        jobs: int = 12,
        nodes: int = 8,
        start: datetime = DEFAULT_START,
        ledger: bool = False,
        found: Callable[[State], None] | None = None,
    ) -> None:
        """About `jobs` jobs at any time, on fixed pools of `nodes` nodes; `start` is aware.

        With `ledger` every event is kept for good, the warm-up's among them. `found` puts into
        the empty account, when the warm-up begins, what is to be there instead.
        """
        self.seed = seed
        first = ticks.from_datetime(start)
        before = int(scenario.warm_up * ticks.SECOND)
        agenda = Agenda(first - before)
        self._state = State(
            scenario=scenario,
            random=Random(seed),
            agenda=agenda,
            wanted_jobs=jobs,
            nodes_per_pool=nodes,
            ledger=Ledger(kept=ledger),
            index=LateIndex(agenda, int(scenario.index_lag * ticks.SECOND)),
            oddities=Random(f"oddities {seed}"),
        )
        (found or _found)(self._state)
        self._plan(scenario, before)
        self._run_until(first)

    @property
    def scenario(self) -> Scenario:
        """What kind of account this is."""
        return self._state.scenario

    @property
    def jobs(self) -> dict[str, Job]:
        """Every job the account lists, by id, oldest first."""
        return self._state.jobs

    @property
    def jobs_made(self) -> int:
        """How many jobs there have been, those that are gone among them."""
        return self._state.jobs_made

    @property
    def pools(self) -> dict[str, Pool]:
        """Every pool the account lists, by id, auto pools among them."""
        return self._state.pools

    @property
    def ledger(self) -> Ledger:
        """Every event since the world began; ValueError where none is kept."""
        if not self._state.ledger.kept:
            raise ValueError("this world keeps no ledger: make it with ledger=True")
        return self._state.ledger

    @property
    def index(self) -> LateIndex:
        """What filters on times see of tasks and records."""
        return self._state.index

    @property
    def tick(self) -> int:
        """Simulated time in ticks, as all times of the entities are."""
        return self._state.now

    @property
    def now(self) -> datetime:
        """Simulated time, to the microsecond."""
        return ticks.to_datetime(self._state.now)

    def advance(self, to: datetime) -> None:
        """Let everything happen that is due up to this time; a time in the past does nothing."""
        self._run_until(ticks.from_datetime(to))

    def change(self, scenario: Scenario) -> None:
        """Live by another scenario from now on: what is there stays as it was drawn.

        Sizes that the account began with stay, too: its pools, and how late lists are.
        """
        self._state.scenario = scenario
        self._state.image_broken = self._state.scheduling_stopped = False
        self._state.pools_to_fill.update(dict.fromkeys(self.pools.values()))
        self._settle()
        self._plan(scenario, 0)

    def find_job(self, job_id: str) -> Job | None:
        """A job by id, in whatever case it is written."""
        return self._state.jobs_by_key.get(job_id.lower())

    def find_task(self, job: Job, task_id: str) -> Task | None:
        """A task of the job by id, in whatever case it is written."""
        found = job.tasks.get(task_id)
        return found or _ignoring_case(job.tasks, task_id)

    def find_pool(self, pool_id: str) -> Pool | None:
        """A pool by id, in whatever case it is written."""
        found = self.pools.get(pool_id)
        return found or _ignoring_case(self.pools, pool_id)

    def create_job(
        self,
        job_id: str,
        *,
        tasks: int = 0,
        pool_id: str | None = None,
        preparation: bool = False,
        release: bool = False,
        ends: bool = False,
    ) -> Job:
        """Submit a job now, with ids of tasks from `task-0001` on; ValueError where it is there.

        `ends`: with its last task. Its tasks run as the scenario has it, but no incident befalls
        the job itself, and when it is gone none takes its place. The pool is the first or named.
        """
        if self.find_job(job_id) is not None:
            raise ValueError(f"there is a job {job_id}")
        pool = self.find_pool(pool_id) if pool_id else next(iter(self.pools.values()), None)
        if pool is None:
            raise ValueError(f"there is no pool {pool_id or 'at all'}")
        job = job_life.create(
            self._state,
            job_id,
            pool,
            tasks=tasks,
            preparation=preparation,
            release=release,
            ends=ends,
        )
        self._settle()
        return job

    def add_tasks(self, job_id: str, number: int) -> None:
        """Add so many tasks to a job."""
        job_life.add_tasks(self._state, self._job(job_id), number)
        self._settle()

    def complete_task(self, job_id: str, task_id: str, failure: str | None = None) -> None:
        """End a task that waits or runs, well or with one of FAILURE_KINDS."""
        kind = None if failure is None else FAILURE_KINDS[failure]
        task_life.end_by_hand(self._state, self._task(job_id, task_id), kind)
        self._settle()

    def delete_task(self, job_id: str, task_id: str) -> None:
        """Delete a task that is completed."""
        task = self._task(job_id, task_id)
        if task.state != "completed":
            raise ValueError(f"task {task.id} is {task.state}")
        oddities.delete_task(self._state, task)
        self._settle()

    def terminate_job(self, job_id: str, reason: str | None = None) -> None:
        """End a job: running tasks end, then release runs, then it is completed."""
        job_life.end_by_user(self._state, self._job(job_id), reason)
        self._settle()

    def delete_job(self, job_id: str) -> None:
        """Delete a job in whatever state: an active one runs its release tasks while `deleting`."""
        job_life.delete(self._state, self._job(job_id))
        self._settle()

    def storm(self, jobs: int) -> None:
        """Let so many jobs be submitted within seconds, as the scenario's storms do."""
        job_life.storm(self._state, jobs)

    def _job(self, job_id: str) -> Job:
        job = self.find_job(job_id)
        if job is None:
            raise ValueError(f"there is no job {job_id}")
        return job

    def _task(self, job_id: str, task_id: str) -> Task:
        task = self.find_task(self._job(job_id), task_id)
        if task is None:
            raise ValueError(f"there is no task {task_id} in {job_id}")
        return task

    def _plan(self, scenario: Scenario, after: int) -> None:
        """What the scenario has in store, `after` ticks from now and later."""
        node_life.plan_wave(self._state)
        job_life.plan_storm(self._state)
        for delay, event in (
            (scenario.image_breaks_after, node_life.break_image),
            (scenario.scheduling_stops_after, schedule.stop),
        ):
            if delay is not None:
                span = after + int(delay * ticks.SECOND)
                self._state.agenda.after(span, self._if_still, scenario, event)

    def _if_still(self, scenario: Scenario, event: Callable[[State], None]) -> None:
        """Let an event of a scenario happen, where it is not over."""
        if self._state.scenario is scenario:
            event(self._state)

    def _run_until(self, tick: int) -> None:
        self._state.agenda.run_until(tick, self._settle)

    def _settle(self) -> None:
        """See to whatever the last event touched, until nothing is left to see to."""
        state = self._state
        while state.jobs_to_settle or state.pools_to_fill or state.nodes_to_fill:
            while state.jobs_to_settle:
                job, _ = state.jobs_to_settle.popitem()
                job_life.settle(state, job)
            while state.pools_to_fill:
                pool, _ = state.pools_to_fill.popitem()
                for node in pool.nodes.values():
                    state.nodes_to_fill.pop(node, None)
                schedule.fill_pool(state, pool)
            while state.nodes_to_fill:
                node, _ = state.nodes_to_fill.popitem()
                schedule.fill_node(state, node)


def _found(state: State) -> None:
    """Fixed pools, and jobs that arrive over most of the warm-up: then every phase is met."""
    scenario, jobs, nodes = state.scenario, state.wanted_jobs, state.nodes_per_pool
    for number in range(_pools_needed(scenario, jobs, nodes)):
        node_life.new_pool(
            state,
            pool_id=pool_name(number),
            nodes=nodes,
            auto_pool=False,
            auto_scale=number < scenario.auto_scale_pools,
        )
    before = int(scenario.warm_up * ticks.SECOND)
    for number in range(jobs):
        state.agenda.after(int(before * 0.8 * number / jobs), job_life.arrive, state)


def _pools_needed(scenario: Scenario, jobs: int, nodes: int) -> int:
    least, most = scenario.pools
    slots = scenario.slots_per_node
    slots_of_pool = nodes * sum(slots) / len(slots)
    return max(least, min(most, ceil(jobs * scenario.slots_per_job / slots_of_pool)))


def _ignoring_case(entities: Mapping[str, _Entity], wanted: str) -> _Entity | None:
    lowered = wanted.lower()
    return next((entity for key, entity in entities.items() if key.lower() == lowered), None)
