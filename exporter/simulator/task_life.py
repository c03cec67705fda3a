"""A task's life: preparing, running, retried, requeued, completed, ended by its user."""

from exporter.simulator import oddities
from exporter.simulator.counts import ACTIVE, FAILED, RUNNING, SUCCEEDED
from exporter.simulator.failure_texts import ENDED_BY_USER, FailureKind
from exporter.simulator.ledger import TaskAdded, TaskRequeued, TaskRetried, TaskReturned
from exporter.simulator.model import Job, Node, Task
from exporter.simulator.scenario import Scenario
from exporter.simulator.state import State


def become(state: State, task: Task, new_state: str, bucket: int) -> None:
    """Change the task's state, with everything that follows from it on the wire."""
    state.index.before_change(task)
    task.previous_state = task.state
    task.previous_state_changed = task.state_changed
    task.state = new_state
    task.state_changed = state.now
    if state.scenario.etag_follows_task_state:
        task.modified = state.now
    if bucket != task.bucket:
        task.job.put(task, bucket)


def add_tasks(state: State, job: Job, ids: list[str]) -> None:
    """New tasks, active from now on, each with its own slots, retries and weight."""
    scenario, random = state.scenario, state.random
    sizes = [size for size, _ in scenario.required_slots]
    weights = [weight for _, weight in scenario.required_slots]
    now = state.now
    for task_id, size in zip(ids, random.choices(sizes, weights, k=len(ids)), strict=True):
        number = job.tasks_made + 1
        task = Task(
            job=job,
            number=number,
            id=task_id,
            required_slots=min(size, job.pool.slots_per_node)
            if scenario.required_slots_fit
            else size,
            max_retries=job.max_task_retries,
            # The service takes a collection of tasks one after the other.
            created=now + number,
            modified=now + number,
            weight=random.random(),
            state_changed=now + number,
            depends_on=_first_task(job) if job.uses_dependencies else None,
        )
        job.add(task)
        state.index.after_creation(task)
        state.ledger.task(TaskAdded, now, task)
    state.pools_to_fill[job.pool] = None


def _first_task(job: Job) -> Task | None:
    return next((task for task in job.tasks.values() if task.depends_on is None), None)


def take_slots(task: Task, node: Node) -> None:
    """Put the task on a node."""
    task.node = node
    node.tasks[task] = None
    node.free -= task.required_slots
    if node.state == "idle":
        node.pool.move(node, "running")


def _leave_slots(state: State, task: Task) -> None:
    node = task.node
    if node is None or task not in node.tasks:
        return
    del node.tasks[task]
    node.free += task.required_slots
    if not node.tasks and node.state == "running":
        node.pool.move(node, "idle")
    state.nodes_to_fill[node] = None


def prepare(state: State, task: Task) -> None:
    """The task waits on its node for the job's preparation."""
    _note_start(state, task)
    become(state, task, "preparing", RUNNING)


def _note_start(state: State, task: Task) -> None:
    if task.bucket == ACTIVE:
        state.ledger.task_started(state.now, task, first=not task.was_started)
        task.was_started = True


def run(state: State, task: Task) -> None:
    """The task's process starts on the node it was put on."""
    _note_start(state, task)
    become(state, task, "running", RUNNING)
    _attempt(state, task)


def _nodes_time(state: State, task: Task) -> int:
    """Now, by the clock of the task's node, if it has one."""
    return state.now if task.node is None else state.now + task.node.clock_skew


def _attempt(state: State, task: Task) -> None:
    scenario = state.scenario
    state.index.before_change(task)
    task.started = _nodes_time(state, task)
    task.attempt += 1
    failure = state.fails(_failure_share(scenario, task), scenario.task_failures)
    if failure is not None and failure.exit_code is None:
        span = state.between(scenario.preprocessing)
    else:
        span = state.around(scenario.task_median, scenario.task_spread)
    state.agenda.after(span, _attempt_over, state, task, task.attempt, failure)


def _failure_share(scenario: Scenario, task: Task) -> float:
    if task.job.uses_dependencies and task.depends_on is None:
        return scenario.first_task_failure_share
    return task.job.failure_share


def _attempt_over(state: State, task: Task, attempt: int, kind: FailureKind | None) -> None:
    if task.attempt != attempt:
        return
    if kind is None:
        complete(state, task, None)
    elif kind.retryable and task.retry_count < task.max_retries:
        # The service tries again on the same node; the task stays running all the while.
        state.index.before_change(task)
        task.retry_count += 1
        task.last_retry = state.now
        state.ledger.task(TaskRetried, state.now, task)
        if state.scenario.etag_follows_task_state:
            task.modified = state.now
        _attempt(state, task)
    else:
        complete(state, task, kind)


def complete(state: State, task: Task, kind: FailureKind | None) -> None:
    """The task is over, for good; a failure may come with exit code 0 or with none."""
    state.index.before_change(task)
    task.attempt += 1
    task.ended = _nodes_time(state, task)
    task.exit_code = 0 if kind is None else kind.exit_code
    task.failure = None if kind is None else kind.failure
    task.result = "success" if kind is None else "failure"
    oddities.tell(state, task, kind)
    from_active = task.bucket == ACTIVE
    become(state, task, "completed", SUCCEEDED if kind is None else FAILED)
    state.ledger.task_completed(state.now, task, from_active=from_active)
    if kind is None and task.job.uses_dependencies and task.depends_on is None:
        task.job.release_dependent_tasks()
        state.pools_to_fill[task.job.pool] = None
    _leave_slots(state, task)
    state.jobs_to_settle[task.job] = None
    if kind is None:
        oddities.after_success(state, task)


def give_back(state: State, task: Task) -> None:
    """The task's node could not be prepared: back to the queue, and the service counts nothing."""
    state.ledger.task(TaskReturned, state.now, task)
    _back_to_queue(state, task)


def _back_to_queue(state: State, task: Task) -> None:
    """The task is active again and waits for another node, before its job's other tasks."""
    state.index.before_change(task)
    task.attempt += 1
    _leave_slots(state, task)
    task.node = None
    task.started = None
    become(state, task, "active", ACTIVE)
    task.job.queue.appendleft(task)
    # The job may have left its pool's round when its last task was placed.
    state.jobs_to_settle[task.job] = None
    state.pools_to_fill[task.job.pool] = None


def requeue(state: State, task: Task) -> None:
    """The task loses its node, or its job is disabled: back to the queue, and counted."""
    state.index.before_change(task)
    task.requeue_count += 1
    task.last_requeue = state.now
    state.ledger.task(TaskRequeued, state.now, task)
    _back_to_queue(state, task)


def end_by_hand(state: State, task: Task, kind: FailureKind | None) -> None:
    """The task ends now, well or in this way; ValueError where it neither waits nor runs."""
    if task.state == "active":
        task.job.queue.remove(task)
    elif task.state != "running":
        raise ValueError(f"task {task.id} is {task.state}")
    complete(state, task, kind)


def end_unstarted(state: State, job: Job, number: int) -> None:
    """A user ends up to `number` of the job's tasks that never ran."""
    if job.state != "active":
        return
    unstarted = [task for task in job.queue if task.state == "active" and not task.requeue_count]
    for task in unstarted[-number:]:
        job.queue.remove(task)
        complete(state, task, ENDED_BY_USER)
