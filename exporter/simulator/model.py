"""What a Batch account holds: pools with nodes, jobs with tasks, preparation and release records.

These are the world's own objects; only the simulation's events change them. Times are ticks
(`ticks.py`), None where the service would leave the member out.
"""

from collections import deque
from dataclasses import dataclass, field

from exporter.simulator.counts import ACTIVE, Counts, Report
from exporter.simulator.failure_texts import ContainerInfo, Failure
from exporter.simulator.naming import JobName
from exporter.simulator.resource_use import TaskStatistics, task_statistics
from exporter.simulator.special_tasks import Execution, PreparationTask, ReleaseTask

NODE_STATES = (
    "creating",
    "deallocated",
    "deallocating",
    "idle",
    "leavingPool",
    "offline",
    "preempted",
    "rebooting",
    "reimaging",
    "running",
    "starting",
    "startTaskFailed",
    "unknown",
    "unusable",
    "upgradingOS",
    "waitingForStartTask",
)
"""In the spelling of node counts; a node itself writes them in lower case."""


@dataclass(slots=True, eq=False)
class Task:
    """One task of a job. `weight` in [0, 1) sets how much it reads, writes and computes."""

    job: "Job"
    number: int
    id: str
    required_slots: int
    max_retries: int
    created: int
    modified: int
    weight: float
    state_changed: int
    state: str = "active"
    previous_state: str | None = None
    previous_state_changed: int | None = None
    bucket: int = ACTIVE
    node: "Node | None" = None
    started: int | None = None
    ended: int | None = None
    exit_code: int | None = None
    result: str | None = None
    result_shown: bool = True
    failure: Failure | None = None
    container: ContainerInfo | None = None
    retry_count: int = 0
    requeue_count: int = 0
    last_retry: int | None = None
    last_requeue: int | None = None
    depends_on: "Task | None" = None
    """Until that one has succeeded this one is active and not scheduled."""
    was_started: bool = False
    """It was preparing or running before, though it may be active again."""
    attempt: int = 0
    """Grows with every start and every interruption: an event of an older attempt is void."""

    @property
    def command_line(self) -> str:
        """What it runs; not stored, for there may be a million tasks."""
        return f"/bin/sh -c 'exec ./run.sh {self.id}'"

    @property
    def shown_result(self) -> str | None:
        """The result as the service says it; some completed tasks have none."""
        return self.result if self.result_shown else None

    def statistics(self, now: int) -> TaskStatistics | None:
        """Resource use up to `now`; None before the task started."""
        if self.started is None:
            return None
        until = self.ended if self.ended is not None else now
        return task_statistics(self.created, self.started, until, self.weight)


@dataclass(slots=True, eq=False)
class NodeRecord:
    """One job on one node: an entry of the preparation and release status list.

    It outlives the node. `ready`: tasks of the job may run there now. `blocked`: preparation
    failed and none may until the node is reimaged. `waiting`: tasks held while it runs.
    `reimaged`: the node lost its disk since, so the job's next task has it prepared again.
    """

    job: "Job"
    number: int
    node: "Node"
    preparation: Execution
    release: Execution | None = None
    ready: bool = False
    blocked: bool = False
    reimaged: bool = False
    waiting: list[Task] = field(default_factory=list)
    in_flight: bool = False
    """Preparation is really under way; its state stays `running` while the node is down."""
    run: int = 0
    """Grows with every start and interruption: an event of an older run is void."""

    @property
    def node_id(self) -> str:
        """Id of the node, which may have left its pool."""
        return self.node.id

    @property
    def pool_id(self) -> str:
        """Id of the pool that the node is or was in."""
        return self.node.pool.id


@dataclass(slots=True, eq=False)
class Job:
    """One job. `pool` is the one it runs on; `auto_pool` when that was made for it alone."""

    number: int
    id: str
    name: JobName
    created: int
    modified: int
    state_changed: int
    started: int
    pool: "Pool"
    auto_pool: bool
    priority: int
    display_name: str | None
    metadata: tuple[tuple[str, str], ...]
    max_wall_clock: int
    max_task_retries: int
    preparation: PreparationTask | None
    release: ReleaseTask | None
    failure_share: float
    uses_dependencies: bool = False
    """Every task but the first depends on the first."""
    state: str = "active"
    previous_state: str | None = None
    previous_state_changed: int | None = None
    ended: int | None = None
    terminate_reason: str | None = None
    scheduling_error: Failure | None = None
    extra: bool = False
    """An additional job: when it is gone, no other takes its place."""
    schedule_id: str | None = None
    on_all_tasks_complete: str = "noaction"
    tasks: dict[str, Task] = field(default_factory=dict)
    records: dict[str, NodeRecord] = field(default_factory=dict)
    queue: deque[Task] = field(default_factory=deque)
    queued: bool = False
    """It stands in its pool's round of jobs that have active tasks."""
    awaiting_release: int = 0
    tasks_to_come: int = 0
    tasks_made: int = 0
    report: Report | None = None
    """What its counts are answered from, where not from themselves."""
    tally: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    slot_tally: list[int] = field(default_factory=lambda: [0, 0, 0, 0])

    @property
    def task_counts(self) -> Counts:
        """Kept with every change of a task, so reading it costs nothing."""
        return Counts(*self.tally)

    @property
    def task_slot_counts(self) -> Counts:
        """The same, each task counting its required slots."""
        return Counts(*self.slot_tally)

    @property
    def reported_task_counts(self) -> Counts:
        """As the service answers them now, which may be late or wrong."""
        return self.task_counts if self.report is None else self.report.tasks()

    @property
    def reported_task_slot_counts(self) -> Counts:
        """The same, each task counting its required slots."""
        return self.task_slot_counts if self.report is None else self.report.slots()

    def put(self, task: Task, bucket: int) -> None:
        """Count the task under another state."""
        tally, slots, required = self.tally, self.slot_tally, task.required_slots
        tally[task.bucket] -= 1
        slots[task.bucket] -= required
        tally[bucket] += 1
        slots[bucket] += required
        task.bucket = bucket
        self._note_counts()

    def add(self, task: Task) -> None:
        """A new active task."""
        self.tasks[task.id] = task
        parent = task.depends_on
        if parent is None or parent.result == "success":
            self.queue.append(task)
        self.tally[ACTIVE] += 1
        self.slot_tally[ACTIVE] += task.required_slots
        self.tasks_made += 1
        self._note_counts()

    def release_dependent_tasks(self) -> None:
        """The first task has succeeded: those that depend on it may run."""
        waiting = (task for task in self.tasks.values() if task.depends_on is not None)
        self.queue.extend(task for task in waiting if task.state == "active")

    def remove(self, task: Task) -> None:
        """A completed task is no more."""
        del self.tasks[task.id]
        self.tally[task.bucket] -= 1
        self.slot_tally[task.bucket] -= task.required_slots
        self._note_counts()

    def _note_counts(self) -> None:
        if self.report is not None:
            self.report.note(self.tally, self.slot_tally)


@dataclass(slots=True, eq=False)
class Node:
    """A compute node. `kind` is `dedicated` or `low_priority`; `free` counts unused slots.

    `clock_skew`: ticks by which its clock is ahead of the service's.
    """

    id: str
    pool: "Pool"
    kind: str
    created: int
    free: int
    state: str = "creating"
    tasks: dict[Task, None] = field(default_factory=dict)
    records: dict[str, NodeRecord] = field(default_factory=dict)
    phase: int = 0
    """Grows with every change of its life: an event planned for an older phase is void."""
    gone: bool = False
    clock_skew: int = 0

    @property
    def up(self) -> bool:
        """It takes and runs tasks."""
        return self.state in {"idle", "running"}


@dataclass(slots=True, eq=False)
class Pool:
    """A pool of like nodes; `round` holds the jobs with active tasks, whose turns it gives."""

    number: int
    id: str
    created: int
    modified: int
    state_changed: int
    allocation_changed: int
    slots_per_node: int
    vm_size: str
    auto_scale: bool
    auto_pool: bool
    targets: dict[str, int]
    made: bool = True
    """False: the service could not make it, and no list shows it."""
    state: str = "active"
    nodes: dict[str, Node] = field(default_factory=dict)
    round: deque[Job] = field(default_factory=deque)
    node_counts: dict[str, dict[str, int]] = field(
        default_factory=lambda: {kind: {} for kind in ("dedicated", "low_priority")}
    )
    """By kind, then by state (NODE_STATES); a state no node was ever in may be absent."""

    def move(self, node: Node, state: str) -> None:
        """Put one of the pool's nodes into another state."""
        counts = self.node_counts[node.kind]
        counts[node.state] -= 1
        counts[state] = counts.get(state, 0) + 1
        node.state = state

    def add(self, node: Node) -> None:
        """Take in a new node."""
        self.nodes[node.id] = node
        counts = self.node_counts[node.kind]
        counts[node.state] = counts.get(node.state, 0) + 1

    def remove(self, node: Node) -> None:
        """Let a node go for good."""
        del self.nodes[node.id]
        self.node_counts[node.kind][node.state] -= 1
        node.gone = True

    def current(self, kind: str) -> int:
        """How many nodes of a kind it has, in whatever state."""
        return sum(self.node_counts[kind].values())

    @property
    def allocation_state(self) -> str:
        """`resizing` while its size is not its target, else `steady`."""
        at_target = all(self.current(kind) == wanted for kind, wanted in self.targets.items())
        return "steady" if at_target else "resizing"
