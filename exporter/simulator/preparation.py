"""Preparation and release tasks: what a job runs on a node before and after its tasks.

A record shows the latest attempt on each node: start, end and exit code are overwritten.
"""

from exporter.simulator import oddities
from exporter.simulator.failure_texts import ENDED_BY_USER, NODE_LOST, FailureKind
from exporter.simulator.model import Job, Node, NodeRecord, Task
from exporter.simulator.special_tasks import Execution, PreparationTask
from exporter.simulator.state import State
from exporter.simulator.task_life import give_back, prepare, run


def begin(state: State, task: Task, node: Node) -> None:
    """Start a task that was just put on a node: at once, or when the node is prepared."""
    job = task.job
    if job.preparation is None:
        run(state, task)
        return
    record = job.records.get(node.id)
    if record is not None and record.ready:
        run(state, task)
        return
    prepare(state, task)
    if record is None:
        record = prepare_node(state, job, node)
    elif not record.in_flight:
        rerun(state, record)
    record.waiting.append(task)


def prepare_node(state: State, job: Job, node: Node) -> NodeRecord:
    """Run the job's preparation on a node where it never ran."""
    execution = Execution(started=state.now + node.clock_skew)
    record = NodeRecord(job, len(job.records) + 1, node, execution)
    job.records[node.id] = record
    node.records[job.id] = record
    state.index.after_creation(record)
    if job.preparation is not None:
        _attempt(state, record, job.preparation)
    return record


def drop_waiting(job: Job) -> None:
    """None of the job's tasks waits for a preparation any more; what runs goes on alone."""
    for record in job.records.values():
        record.waiting.clear()


def rerun(state: State, record: NodeRecord) -> None:
    """Preparation starts anew on the node, which was restarted: the old run is forgotten."""
    if record.job.preparation is not None:
        state.index.before_change(record)
        record.ready = False
        record.reimaged = False
        record.preparation = Execution(started=state.now + record.node.clock_skew)
        _attempt(state, record, record.job.preparation)


def _attempt(state: State, record: NodeRecord, task: PreparationTask) -> None:
    scenario = state.scenario
    record.run += 1
    record.in_flight = True
    state.index.before_change(record)
    record.preparation.started = state.now + record.node.clock_skew
    state.ledger.run_started(state.now, record, record.preparation)
    if state.image_broken:
        failure = state.fails(1.0, scenario.broken_image_failures)
    else:
        failure = state.fails(scenario.preparation_failure_share, scenario.preparation_failures)
    if failure is not None and failure.exit_code is None:
        span = state.between(scenario.preprocessing)
    else:
        span = state.around(scenario.preparation_median, scenario.preparation_spread)
    state.agenda.after(span, _attempt_over, state, record, record.run, task, failure)


def _attempt_over(
    state: State,
    record: NodeRecord,
    run_number: int,
    task: PreparationTask,
    kind: FailureKind | None,
) -> None:
    if record.run != run_number:
        return
    preparation = record.preparation
    if kind is not None and kind.retryable and preparation.retry_count < task.max_retries:
        state.index.before_change(record)
        preparation.retry_count += 1
        preparation.last_retry = state.now
        state.ledger.run_retried(state.now, record)
        _attempt(state, record, task)
        return
    _close(state, record, preparation, kind)
    record.in_flight = False
    waiting, record.waiting = record.waiting, []
    if kind is None or not task.wait_for_success:
        record.ready = True
        for waiter in waiting:
            run(state, waiter)
    else:
        # No task of the job may run here until the node is reimaged; they go elsewhere.
        record.blocked = True
        for waiter in reversed(waiting):
            give_back(state, waiter)


def _close(
    state: State, record: NodeRecord, execution: Execution, kind: FailureKind | None
) -> None:
    """A run on a node is over: well, or in this way."""
    state.index.before_change(record)
    execution.state = "completed"
    execution.ended = state.now + record.node.clock_skew
    execution.exit_code = 0 if kind is None else kind.exit_code
    execution.failure = None if kind is None else kind.failure
    execution.result = "success" if kind is None else "failure"
    oddities.tell(state, execution, kind)
    state.ledger.run_completed(state.now, record, execution)


def interrupt(state: State, record: NodeRecord, *, rebooted: bool, reimaged: bool) -> None:
    """The node goes down: whatever the job ran on it stops.

    A preparation stays `running` as the service last knew it, until the node comes back.
    """
    record.run += 1
    record.waiting.clear()
    if record.in_flight or rebooted or reimaged:
        record.ready = False
    record.in_flight = False
    if reimaged:
        record.reimaged = True
        record.blocked = False
    _end_release(state, record)


def come_back(state: State, record: NodeRecord) -> None:
    """The node is up again: run preparation anew where that is due before any task asks."""
    task = record.job.preparation
    if record.job.state != "active" or record.ready or record.blocked or task is None:
        return
    if record.preparation.state == "running" or (task.rerun_on_reboot and not record.reimaged):
        rerun(state, record)
    elif not record.reimaged:
        record.ready = True


def lose(state: State, record: NodeRecord) -> None:
    """The node left for good: its record stays, and nothing in it is running."""
    if record.preparation.state == "running":
        _close(state, record, record.preparation, NODE_LOST)


def _end_release(state: State, record: NodeRecord) -> None:
    release = record.release
    if release is not None and release.state == "running":
        _close(state, record, release, NODE_LOST)
        record.job.awaiting_release -= 1
        state.jobs_to_settle[record.job] = None


def end_with_job(state: State, job: Job) -> None:
    """The job ends: a preparation still running is ended, and release starts where it may.

    That is on every node where preparation completed and which is still up.
    """
    for record in job.records.values():
        waited_for = record.preparation.state == "completed"
        if not waited_for:
            record.run += 1
            record.in_flight = False
            record.waiting.clear()
            _close(state, record, record.preparation, ENDED_BY_USER)
        if waited_for and job.release is not None and record.node.up:
            _release(state, record)


def _release(state: State, record: NodeRecord) -> None:
    scenario = state.scenario
    state.index.before_change(record)
    record.run += 1
    record.release = Execution(started=state.now + record.node.clock_skew)
    state.ledger.run_started(state.now, record, record.release)
    record.job.awaiting_release += 1
    failure = state.fails(scenario.release_failure_share, scenario.release_failures)
    span = state.around(scenario.release_median, scenario.release_spread)
    state.agenda.after(span, _release_over, state, record, record.run, failure)


def _release_over(
    state: State, record: NodeRecord, run_number: int, kind: FailureKind | None
) -> None:
    release = record.release
    if record.run != run_number or release is None:
        return
    _close(state, record, release, kind)
    record.job.awaiting_release -= 1
    state.jobs_to_settle[record.job] = None
