"""A pool's nodes: they come, start, are rebooted, reimaged, preempted, fail and leave."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from exporter.simulator import oddities, preparation, task_life
from exporter.simulator.model import Node, Pool
from exporter.simulator.scenario import Span
from exporter.simulator.state import State
from exporter.simulator.ticks import SECOND


def new_pool(
    state: State,
    *,
    pool_id: str,
    nodes: int,
    auto_pool: bool,
    auto_scale: bool,
    made: bool = True,
) -> Pool:
    """A pool with all its nodes still to be created; the last of them are of low priority.

    One that is not `made` is not in the account, and has no nodes.
    """
    scenario = state.scenario
    low_priority = round(nodes * scenario.low_priority_share)
    number = state.pools_made
    state.pools_made += 1
    now = state.now
    pool = Pool(
        number=number,
        id=pool_id,
        created=now,
        modified=now,
        state_changed=now,
        allocation_changed=now,
        slots_per_node=scenario.slots_per_node[number % len(scenario.slots_per_node)],
        vm_size=("standard_d4s_v5", "standard_d8s_v5", "standard_f16s_v2")[number % 3],
        auto_scale=auto_scale,
        auto_pool=auto_pool,
        targets={"dedicated": nodes - low_priority, "low_priority": low_priority},
        made=made,
    )
    if not made:
        return pool
    state.pools[pool.id] = pool
    _reach_target(state, pool)
    if auto_scale:
        state.agenda.after(int(scenario.auto_scale_interval * SECOND), _scale, state, pool, nodes)
    return pool


def add_ready_node(state: State, pool: Pool) -> Node:
    """One more node that takes tasks at once, and to which nothing ever happens."""
    node = _new_node(state, pool, "dedicated")
    pool.add(node)
    pool.targets["dedicated"] += 1
    pool.move(node, "idle")
    return node


def _new_node(state: State, pool: Pool, kind: str) -> Node:
    suffix = "d" if kind == "dedicated" else "p"
    return Node(
        id=f"tvmps_{state.random.getrandbits(256):064x}_{suffix}",
        pool=pool,
        kind=kind,
        created=state.now,
        free=pool.slots_per_node,
        clock_skew=oddities.clock_skew(state),
    )


def delete_pool(state: State, pool: Pool) -> None:
    """The pool is deleting; it is gone when its nodes are."""
    pool.state = "deleting"
    pool.state_changed = pool.modified = state.now
    pool.targets = dict.fromkeys(pool.targets, 0)
    for node in list(pool.nodes.values()):
        _leave(state, node)
    if not pool.nodes:
        del state.pools[pool.id]


def _reach_target(state: State, pool: Pool) -> None:
    """Create the nodes that the pool lacks."""
    for kind, wanted in pool.targets.items():
        staying = pool.current(kind) - pool.node_counts[kind].get("leavingPool", 0)
        for _ in range(wanted - staying):
            node = _new_node(state, pool, kind)
            pool.add(node)
            _enter(state, node, "creating", state.scenario.node_creating, _start)


def _scale(state: State, pool: Pool, nodes: int) -> None:
    """The autoscale formula: a size in range, larger the more work waits."""
    if pool.state != "active":
        return
    scenario = state.scenario
    low, high = scenario.auto_scale_range
    waiting = sum(job.tally[0] for job in pool.round)
    pressure = min(1.0, waiting / max(1, nodes * pool.slots_per_node))
    # Chance beside the pressure, for a formula also sees what the simulation does not.
    share = low + (high - low) * (pressure + state.random.random()) / 2
    total = max(1, round(nodes * share))
    low_priority = round(total * scenario.low_priority_share)
    pool.targets = {"dedicated": total - low_priority, "low_priority": low_priority}
    pool.allocation_changed = state.now
    for kind, wanted in pool.targets.items():
        members = [node for node in pool.nodes.values() if node.kind == kind]
        staying = [node for node in members if node.state != "leavingPool"]
        for node in staying[wanted:]:
            _leave(state, node)
    _reach_target(state, pool)
    state.agenda.after(int(scenario.auto_scale_interval * SECOND), _scale, state, pool, nodes)


def _enter(
    state: State, node: Node, new_state: str, span: Span, then: Callable[[State, Node], None]
) -> None:
    """Put the node in a state that lasts a while, after which comes the next step."""
    node.phase += 1
    node.pool.move(node, new_state)
    state.agenda.after(state.between(span), _next_step, state, node, node.phase, then)


def _next_step(state: State, node: Node, phase: int, then: Callable[[State, Node], None]) -> None:
    if node.phase == phase and not node.gone:
        then(state, node)


def _start(state: State, node: Node) -> None:
    _enter(state, node, "starting", state.scenario.node_starting, _run_start_task)


def _run_start_task(state: State, node: Node) -> None:
    _enter(state, node, "waitingForStartTask", state.scenario.node_start_task, _start_task_over)


def _start_task_over(state: State, node: Node) -> None:
    scenario = state.scenario
    if state.chance(scenario.node_start_task_failure_share):
        _enter(state, node, "startTaskFailed", scenario.node_start_task_failed_for, _reboot)
    else:
        _ready(state, node)


def _ready(state: State, node: Node) -> None:
    """The node takes tasks from now on, until its next incident."""
    node.phase += 1
    node.pool.move(node, "idle")
    for record in list(node.records.values()):
        preparation.come_back(state, record)
    state.nodes_to_fill[node] = None
    interval = state.random.expovariate(1.0 / state.scenario.node_incident_interval)
    state.agenda.after(int(interval * SECOND), _next_step, state, node, node.phase, _incident)


def _incident(state: State, node: Node) -> None:
    scenario = state.scenario
    incidents = scenario.node_incidents
    if node.kind == "low_priority":
        incidents = (*incidents, ("preempt", scenario.preemption_weight))
    _INCIDENTS[state.pick(incidents)](state, node)


def _interrupt(state: State, node: Node, *, rebooted: bool = False, reimaged: bool = False) -> None:
    """Whatever runs on the node stops; its tasks go back to the queue."""
    for task in reversed(list(node.tasks)):
        task_life.requeue(state, task)
    for record in node.records.values():
        preparation.interrupt(state, record, rebooted=rebooted, reimaged=reimaged)


def _leave(state: State, node: Node) -> None:
    if node.state == "leavingPool":
        return
    _interrupt(state, node, reimaged=True)
    _enter(state, node, "leavingPool", state.scenario.node_leaving, _gone)


def _gone(state: State, node: Node) -> None:
    pool = node.pool
    for record in node.records.values():
        preparation.lose(state, record)
    node.records.clear()
    pool.remove(node)
    if pool.state == "active":
        _reach_target(state, pool)
    elif not pool.nodes:
        del state.pools[pool.id]


def _reboot(state: State, node: Node) -> None:
    _interrupt(state, node, rebooted=True)
    _enter(state, node, "rebooting", state.scenario.node_restarting, _start)


def _reimage(state: State, node: Node) -> None:
    _interrupt(state, node, reimaged=True)
    _enter(state, node, "reimaging", state.scenario.node_restarting, _start)


def _preempt(state: State, node: Node) -> None:
    """Azure takes the machine back; the node returns with an empty disk when there is one."""
    _interrupt(state, node, reimaged=True)
    _enter(state, node, "preempted", state.scenario.preempted_for, _create)


def _create(state: State, node: Node) -> None:
    _enter(state, node, "creating", state.scenario.node_creating, _start)


def break_image(state: State) -> None:
    """A new image comes to every node, and no job's preparation succeeds on it."""
    state.image_broken = True
    for pool in state.pools.values():
        for node in pool.nodes.values():
            span = state.between(state.scenario.image_rollout)
            state.agenda.after(span, _take_image, state, node)


def _take_image(state: State, node: Node) -> None:
    if node.up:
        _reimage(state, node)
    elif not node.gone:
        state.agenda.after(SECOND, _take_image, state, node)


def plan_wave(state: State) -> None:
    """The next wave of preemptions, after which comes another."""
    if state.scenario.eviction_wave_interval is not None:
        span = state.between(state.scenario.eviction_wave_interval)
        state.agenda.after(span, _wave, state)


def _wave(state: State) -> None:
    """Azure needs many machines back at about the same time."""
    scenario = state.scenario
    low, high = scenario.eviction_wave_share
    share = low + (high - low) * state.random.random()
    for pool in state.pools.values():
        for node in pool.nodes.values():
            if node.kind == "low_priority" and node.up and state.chance(share):
                span = state.between(scenario.eviction_wave_length)
                state.agenda.after(span, _next_step, state, node, node.phase, _evict)
    plan_wave(state)


def _evict(state: State, node: Node) -> None:
    if state.chance(state.scenario.eviction_for_good_share):
        _interrupt(state, node, reimaged=True)
        _enter(state, node, "preempted", state.scenario.preempted_for, _leave)
    else:
        _preempt(state, node)


def _unusable(state: State, node: Node) -> None:
    _interrupt(state, node)
    _enter(state, node, "unusable", state.scenario.node_away_for, _leave)


def _offline(state: State, node: Node) -> None:
    _interrupt(state, node)
    _enter(state, node, "offline", state.scenario.node_away_for, _ready)


def _unknown(state: State, node: Node) -> None:
    _interrupt(state, node)
    _enter(state, node, "unknown", state.scenario.node_away_for, _ready)


_INCIDENTS: Mapping[str, Callable[[State, Node], None]] = MappingProxyType(
    {
        "leave": _leave,
        "reboot": _reboot,
        "reimage": _reimage,
        "preempt": _preempt,
        "unusable": _unusable,
        "offline": _offline,
        "unknown": _unknown,
    }
)
