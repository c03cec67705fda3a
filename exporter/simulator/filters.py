"""What each list operation lets stand in its `$filter`, as the service documents it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from exporter.simulator.filter_language import (
    EQ_ONLY,
    EQUALITY,
    EVERYTHING,
    ORDERED,
    Property,
)
from exporter.simulator.model import NodeRecord
from exporter.simulator.special_tasks import Execution

RESULTS = frozenset({"success", "failure"})
TASK_STATES = frozenset({"active", "preparing", "running", "completed"})
JOB_STATES = frozenset(
    {"active", "disabling", "disabled", "enabling", "terminating", "completed", "deleting"}
)

_JOBS = {
    "id": Property("text", EVERYTHING, lambda job: job.id),
    "state": Property("name", EQUALITY, lambda job: job.state, JOB_STATES),
    "stateTransitionTime": Property("time", ORDERED, lambda job: job.state_changed),
    "creationTime": Property("time", ORDERED, lambda job: job.created),
    "lastModified": Property("time", ORDERED, lambda job: job.modified),
    "executionInfo/startTime": Property("time", ORDERED, lambda job: job.started),
    "executionInfo/endTime": Property("time", ORDERED, lambda job: job.ended),
    "executionInfo/poolId": Property("text", EVERYTHING, lambda job: job.pool.id),
}

_TASKS = {
    "id": Property("text", EVERYTHING, lambda task: task.id),
    "state": Property("name", EQUALITY, lambda task: task.state, TASK_STATES),
    "stateTransitionTime": Property("time", ORDERED, lambda task: task.state_changed),
    "creationTime": Property("time", ORDERED, lambda task: task.created),
    # The documented spelling; lists write the member as lastModified.
    "lastModifiedTime": Property("time", ORDERED, lambda task: task.modified),
    "executionInfo/startTime": Property("time", ORDERED, lambda task: task.started),
    "executionInfo/endTime": Property("time", ORDERED, lambda task: task.ended),
    "executionInfo/exitCode": Property("number", ORDERED, lambda task: task.exit_code),
    "executionInfo/result": Property("name", EQUALITY, lambda task: task.shown_result, RESULTS),
}

_POOLS = {
    "id": Property("text", EVERYTHING, lambda pool: pool.id),
    "state": Property("name", EQUALITY, lambda pool: pool.state, frozenset({"active", "deleting"})),
    "stateTransitionTime": Property("time", ORDERED, lambda pool: pool.state_changed),
    "allocationState": Property(
        "name",
        EQ_ONLY,
        lambda pool: pool.allocation_state,
        frozenset({"steady", "resizing", "stopping"}),
    ),
    "allocationStateTransitionTime": Property(
        "time", ORDERED, lambda pool: pool.allocation_changed
    ),
    "creationTime": Property("time", ORDERED, lambda pool: pool.created),
    "enableAutoScale": Property("truth", EQUALITY, lambda pool: pool.auto_scale),
    "lastModified": Property("time", ORDERED, lambda pool: pool.modified),
    "vmSize": Property("text", EQUALITY, lambda pool: pool.vm_size),
    "enableInterNodeCommunication": Property("truth", EQUALITY, lambda _: False),
}


def _execution(member: str, which: str) -> dict[str, Property]:
    """The properties of one of a record's two executions, which may be absent."""

    def reading(attribute: str) -> Any:
        def read(record: NodeRecord) -> Any:
            execution: Execution | None = getattr(record, which)
            return None if execution is None else getattr(execution, attribute)

        return read

    states = frozenset({"running", "completed"})
    return {
        f"{member}/state": Property("name", EQUALITY, reading("state"), states),
        f"{member}/result": Property("name", EQUALITY, reading("shown_result"), RESULTS),
        f"{member}/startTime": Property("time", ORDERED, reading("started")),
        f"{member}/endTime": Property("time", ORDERED, reading("ended")),
        f"{member}/exitCode": Property("number", ORDERED, reading("exit_code")),
    }


_RECORDS = {
    "poolId": Property("text", EQUALITY, lambda record: record.pool_id),
    "nodeId": Property("text", EQUALITY, lambda record: record.node_id),
    **_execution("jobPreparationTaskExecutionInfo", "preparation"),
    **_execution("jobReleaseTaskExecutionInfo", "release"),
}

JOB_FILTER: Mapping[str, Property] = MappingProxyType(_JOBS)
TASK_FILTER: Mapping[str, Property] = MappingProxyType(_TASKS)
POOL_FILTER: Mapping[str, Property] = MappingProxyType(_POOLS)
RECORD_FILTER: Mapping[str, Property] = MappingProxyType(_RECORDS)
NODE_COUNTS_FILTER: Mapping[str, Property] = MappingProxyType(
    {"poolId": Property("text", EQ_ONLY, lambda pool: pool.id)}
)
