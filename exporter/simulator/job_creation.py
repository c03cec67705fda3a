"""What a job is when a user submits it: its name, size, pool, and what was specified of it."""

from uuid import UUID

from exporter.simulator import node_life, oddities
from exporter.simulator.counts import ACTIVE
from exporter.simulator.ledger import JobCreated
from exporter.simulator.model import Job, Pool
from exporter.simulator.naming import JobName, job_metadata, job_name, pipeline_job_name
from exporter.simulator.special_tasks import PreparationTask, ReleaseTask
from exporter.simulator.state import State
from exporter.simulator.ticks import SECOND


def new_name(state: State) -> JobName:
    """An id that no job has, with what goes with it."""
    number = state.jobs_made + 1
    if state.scenario.pipelines_only:
        return pipeline_job_name(state.random, number)
    return job_name(state.random, number, state.jobs_by_key)


def size(state: State) -> int:
    """How many tasks a job gets: small jobs are more common than large ones."""
    least, most = state.scenario.tasks_per_job
    size: float = least * (most / least) ** state.random.random()
    return round(size)


def new_job(state: State, name: JobName, pool: Pool, *, auto_pool: bool) -> Job:
    """A job without tasks, which the account lists from now on."""
    state.jobs_made += 1
    job = _drawn_job(state, name, pool, auto_pool=auto_pool)
    state.jobs[job.id] = state.jobs_by_key[job.id.lower()] = job
    state.ledger.job(JobCreated, state.now, job)
    return job


def _drawn_job(state: State, name: JobName, pool: Pool, *, auto_pool: bool) -> Job:
    scenario, random, now = state.scenario, state.random, state.now
    prepared = state.chance(scenario.preparation_share)
    flaky = state.chance(scenario.flaky_job_share)
    dependencies = scenario.dependencies_share
    return Job(
        number=state.jobs_made,
        id=name.id,
        name=name,
        created=now,
        modified=now,
        state_changed=now,
        started=now + random.randint(50_000, 900_000),
        pool=pool,
        auto_pool=auto_pool,
        priority=random.choice((0, 0, 0, 100, -500, 1000)),
        display_name=name.display_name if state.chance(scenario.display_name_share) else None,
        metadata=job_metadata(random) if state.chance(scenario.metadata_share) else (),
        max_wall_clock=int(scenario.job_max_wall_clock * SECOND),
        max_task_retries=random.randint(*scenario.task_retries),
        preparation=PreparationTask(
            command_line="/bin/sh -c 'exec ./prepare.sh'",
            max_retries=random.randint(*scenario.preparation_retries),
            wait_for_success=state.chance(scenario.wait_for_success_share),
            rerun_on_reboot=state.chance(scenario.rerun_on_reboot_share),
        )
        if prepared
        else None,
        release=ReleaseTask("/bin/sh -c 'exec ./clean-up.sh'")
        if prepared and state.chance(scenario.release_share)
        else None,
        failure_share=scenario.flaky_task_failure_share if flaky else scenario.task_failure_share,
        uses_dependencies=dependencies > 0.0 and state.chance(dependencies),
        schedule_id=name.schedule_id,
        report=oddities.count_report(state),
    )


def fixed_pool(state: State) -> Pool:
    """The less busy of two pools, as a user with an eye on them chooses."""
    fixed = [pool for pool in state.pools.values() if not pool.auto_pool]
    return min(state.random.sample(fixed, min(2, len(fixed))), key=_waiting_per_slot)


def _waiting_per_slot(pool: Pool) -> float:
    waiting = sum(job.slot_tally[ACTIVE] for job in pool.round)
    return waiting / (pool.slots_per_node * max(1, len(pool.nodes)))


def auto_pool_of_its_own(state: State) -> Pool:
    """A pool for one job alone, which is perhaps never made."""
    nodes = max(2, round(state.nodes_per_pool * state.scenario.auto_pool_size_share))
    pool_id = str(UUID(int=state.random.getrandbits(128), version=4)).upper()
    made = not oddities.chance(state, state.scenario.auto_pool_failure_share)
    return node_life.new_pool(
        state, pool_id=pool_id, nodes=nodes, auto_pool=True, auto_scale=False, made=made
    )
