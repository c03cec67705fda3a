"""What both SDKs' objects have in common, as plain numbers and strings for the test to compare.

It runs inside the SDK's own environment, so it imports nothing but the standard library.
Moments are whole microseconds since 1970 (the SDKs cut the seventh digit), spans are seconds.
"""

from datetime import datetime, timedelta
from typing import Any

EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")

NODE_STATES = (
    "creating",
    "idle",
    "leaving_pool",
    "offline",
    "preempted",
    "rebooting",
    "reimaging",
    "running",
    "start_task_failed",
    "starting",
    "total",
    "unknown",
    "unusable",
    "upgrading_os",
    "waiting_for_start_task",
)


def moment(value: datetime | None) -> int | None:
    return None if value is None else (value - EPOCH) // timedelta(microseconds=1)


def name_of(value: Any) -> str | None:
    """The wire's word for an enumeration's value, which may also be a plain string."""
    return None if value is None else str(getattr(value, "value", value)).lower()


def either(found: Any, in_14: str, in_15: str) -> Any:
    """An attribute that the two SDKs spell differently."""
    return getattr(found, in_14 if hasattr(found, in_14) else in_15)


def counts(found: Any) -> list[int]:
    names = ("active", "running", "completed", "succeeded", "failed")
    return [getattr(found, name) for name in names]


def failure(found: Any) -> list[Any] | None:
    if found is None:
        return None
    details = [[pair.name, pair.value] for pair in found.details or []]
    return [name_of(found.category), found.code, found.message, details]


def job(found: Any) -> dict[str, Any]:
    execution = found.execution_info
    error = execution.scheduling_error
    return {
        "state": name_of(found.state),
        "priority": found.priority,
        "display_name": found.display_name,
        "pool_id": found.pool_info.pool_id,
        "auto_pool": found.pool_info.auto_pool_specification is not None,
        "execution_pool_id": execution.pool_id,
        "created": moment(found.creation_time),
        "changed": moment(found.state_transition_time),
        "started": moment(execution.start_time),
        "ended": moment(execution.end_time),
        "reason": either(execution, "terminate_reason", "termination_reason"),
        "awaited": None if error is None else error.details[0].value,
        "metadata": [[pair.name, pair.value] for pair in found.metadata or []],
        "prepares": found.job_preparation_task is not None,
        "releases": found.job_release_task is not None,
    }


def execution(found: Any) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "state": name_of(found.state),
        "started": moment(found.start_time),
        "ended": moment(found.end_time),
        "exit_code": found.exit_code,
        "result": name_of(found.result),
        "failure": failure(found.failure_info),
        # Release tasks have neither of these.
        "retries": getattr(found, "retry_count", None),
        "last_retry": moment(getattr(found, "last_retry_time", None)),
    }


def record(found: Any) -> dict[str, Any]:
    return {
        "pool_id": found.pool_id,
        "node_id": found.node_id,
        "preparation": execution(found.job_preparation_task_execution_info),
        "release": execution(found.job_release_task_execution_info),
    }


def task(found: Any) -> dict[str, Any]:
    run = found.execution_info
    return {
        "id": found.id,
        "state": name_of(found.state),
        "slots": found.required_slots,
        "created": moment(found.creation_time),
        "changed": moment(found.state_transition_time),
        "started": moment(run.start_time),
        "ended": moment(run.end_time),
        "exit_code": run.exit_code,
        "result": name_of(run.result),
        "failure": failure(run.failure_info),
        "retries": run.retry_count,
        "requeues": run.requeue_count,
        "last_retry": moment(run.last_retry_time),
        "last_requeue": moment(run.last_requeue_time),
        "node_id": None if found.node_info is None else found.node_info.node_id,
    }


def statistics(found: Any) -> dict[str, Any]:
    return {
        "user": found.user_cpu_time.total_seconds(),
        "kernel": found.kernel_cpu_time.total_seconds(),
        "wall": found.wall_clock_time.total_seconds(),
        "wait": found.wait_time.total_seconds(),
        "read_ops": found.read_iops,
        "write_ops": found.write_iops,
        "read_gib": either(found, "read_io_gi_b", "read_io_gib"),
        "write_gib": either(found, "write_io_gi_b", "write_io_gib"),
    }


def node_counts(found: Any) -> dict[str, dict[str, int]]:
    return {
        kind: {state: getattr(getattr(found, kind), state) for state in NODE_STATES}
        for kind in ("dedicated", "low_priority")
    }


def pool(found: Any) -> dict[str, Any]:
    return {
        "state": name_of(found.state),
        "allocation": name_of(found.allocation_state),
        "slots": found.task_slots_per_node,
        "current": [found.current_dedicated_nodes, found.current_low_priority_nodes],
        "target": [found.target_dedicated_nodes, found.target_low_priority_nodes],
        "auto_scale": found.enable_auto_scale,
    }
