"""Which task goes to which node: a pool's jobs by turns, a node's slots never overbooked."""

from exporter.simulator import preparation
from exporter.simulator.model import Job, Node, Pool, Task
from exporter.simulator.state import State
from exporter.simulator.task_life import take_slots

_LOOK_AHEAD = 4  # tasks of a job looked at for one that fits: a large one must not stop the small


def join_round(job: Job) -> None:
    """Give the job its turns, as long as it is active and has active tasks."""
    if not job.queued and job.queue and job.state == "active":
        job.queued = True
        job.pool.round.append(job)


def fill_node(state: State, node: Node) -> None:
    """Give the node tasks until it has no free slot or nothing fits."""
    while node.free > 0 and node.up and _place_one(state, node):
        pass


def fill_pool(state: State, pool: Pool) -> None:
    """Give every node with free slots one task after the other, spreading them."""
    nodes = [node for node in pool.nodes.values() if node.free > 0 and node.up]
    while nodes and pool.round:
        nodes = [node for node in nodes if _place_one(state, node) and node.free > 0]


def stop(state: State) -> None:
    """From now on no task is put on any node."""
    state.scheduling_stopped = True


def _place_one(state: State, node: Node) -> bool:
    if state.scheduling_stopped:
        return False
    turns = node.pool.round
    for _ in range(len(turns)):
        job = turns.popleft()
        if job.state != "active" or not job.queue:
            job.queued = False
            continue
        task = _take(job, node)
        if job.queue:
            turns.append(job)
        else:
            job.queued = False
        if task is not None:
            take_slots(task, node)
            preparation.begin(state, task, node)
            return True
    return False


def _take(job: Job, node: Node) -> Task | None:
    record = job.records.get(node.id)
    if record is not None and record.blocked:
        return None
    for index in range(min(_LOOK_AHEAD, len(job.queue))):
        task = job.queue[index]
        if task.required_slots <= node.free:
            del job.queue[index]
            return task
    return None
