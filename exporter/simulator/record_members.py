"""The members of preparation and release records on the wire, as `members.py` has the others."""

from types import MappingProxyType
from typing import Any

from exporter.simulator.members import Table, container_info, failure_info, node_url, shown_time
from exporter.simulator.model import NodeRecord
from exporter.simulator.special_tasks import Execution
from exporter.simulator.ticks import timestamp
from exporter.simulator.wire import View


def _record_execution(
    record: NodeRecord, view: View, execution: Execution, task_id: str
) -> dict[str, Any]:
    root = f"workitems/{record.job.id}/job-1/{task_id}"
    return {
        "startTime": timestamp(execution.started),
        "endTime": shown_time(execution.ended),
        "taskRootDirectory": root,
        "taskRootDirectoryUrl": f"{node_url(record.node, view)}/files/{root}",
        "state": execution.state,
        "exitCode": execution.exit_code,
        "containerInfo": container_info(execution.container, view),
        "failureInfo": failure_info(execution.failure),
        "result": execution.shown_result,
    }


def _preparation_execution(record: NodeRecord, view: View) -> dict[str, Any]:
    execution = record.preparation
    members = _record_execution(record, view, execution, "jobpreparation")
    members["retryCount"] = execution.retry_count
    members["lastRetryTime"] = shown_time(execution.last_retry)
    return members


def _release_execution(record: NodeRecord, view: View) -> dict[str, Any] | None:
    if record.release is None:
        return None
    return _record_execution(record, view, record.release, "jobrelease")


RECORD_MEMBERS: Table = MappingProxyType(
    {
        "poolId": lambda record, view: view.pool_id(record.pool_id),
        "nodeId": lambda record, _: record.node_id,
        "nodeUrl": lambda record, view: node_url(record.node, view),
        "jobPreparationTaskExecutionInfo": _preparation_execution,
        "jobReleaseTaskExecutionInfo": _release_execution,
    }
)
