"""The members of jobs, tasks and records on the wire, in the order of the service.

One row a member: what it holds, given the entity and the View; None where it is left out. The
names are what `$select` may name.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from exporter.simulator.failure_texts import Failure
from exporter.simulator.model import Job, Node, NodeRecord, Task
from exporter.simulator.special_tasks import Execution
from exporter.simulator.ticks import DAY, INFINITE, MINUTE, duration, etag, timestamp
from exporter.simulator.wire import Member, View

Table = Mapping[str, Member]

_USER = MappingProxyType({"autoUser": {"scope": "pool", "elevationLevel": "nonadmin"}})


def _time(tick: int | None) -> str | None:
    return None if tick is None else timestamp(tick)


def _pairs(pairs: tuple[tuple[str, str], ...]) -> list[dict[str, str]] | None:
    return [{"name": name, "value": value} for name, value in pairs] or None


def _failure(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {
        "category": failure.category,
        "code": failure.code,
        "message": failure.message,
        "details": _pairs(failure.details),
    }


# Jobs


def job_url(job: Job, view: View) -> str:
    """The job's own URL; a colon in an id stays as it is."""
    return f"{view.base}/jobs/{job.id}"


def _preparation_task(job: Job, _: View) -> dict[str, Any] | None:
    task = job.preparation
    if task is None:
        return None
    return {
        "id": "jobpreparation",
        "commandLine": task.command_line,
        "constraints": {
            "maxWallClockTime": duration(INFINITE),
            "retentionTime": duration(7 * DAY),
            "maxTaskRetryCount": task.max_retries,
        },
        "userIdentity": dict(_USER),
        "waitForSuccess": task.wait_for_success,
        "rerunOnNodeRebootAfterSuccess": task.rerun_on_reboot,
    }


def _release_task(job: Job, _: View) -> dict[str, Any] | None:
    if job.release is None:
        return None
    return {
        "id": "jobrelease",
        "commandLine": job.release.command_line,
        "maxWallClockTime": duration(15 * MINUTE),
        "retentionTime": duration(7 * DAY),
        "userIdentity": dict(_USER),
    }


def machine() -> dict[str, Any]:
    """The image of the nodes of every pool."""
    return {
        "imageReference": {
            "publisher": "microsoft-dsvm",
            "offer": "ubuntu-hpc",
            "sku": "2204",
            "version": "latest",
        },
        "nodeAgentSKUId": "batch.node.ubuntu 22.04",
    }


def _pool_info(job: Job, _: View) -> dict[str, Any]:
    if not job.auto_pool:
        return {"poolId": job.pool.id}
    return {
        "autoPoolSpecification": {
            "poolLifetimeOption": "job",
            "keepAlive": False,
            "pool": {
                "vmSize": job.pool.vm_size,
                "virtualMachineConfiguration": machine(),
                "taskSlotsPerNode": job.pool.slots_per_node,
                "targetDedicatedNodes": job.pool.targets["dedicated"],
                "targetLowPriorityNodes": job.pool.targets["low_priority"],
            },
        }
    }


def _job_execution(job: Job, _: View) -> dict[str, Any]:
    error = None
    if job.state == "terminating" and job.awaiting_release:
        error = {
            "category": "ServerError",
            "code": "JobTerminationAwaitingNodeProcessing",
            "message": "The Job termination operation is waiting for processing from one or more "
            "node.",
            "details": _pairs(
                (("Number of nodes awaiting processing", str(job.awaiting_release)),)
            ),
        }
    return {
        "startTime": timestamp(job.started),
        "endTime": _time(job.ended),
        "poolId": job.pool.id,
        "schedulingError": error,
        "terminateReason": job.terminate_reason,
    }


JOB_MEMBERS: Table = MappingProxyType(
    {
        "id": lambda job, _: job.id,
        "displayName": lambda job, _: job.display_name,
        "url": job_url,
        "eTag": lambda job, _: etag(job.modified),
        "lastModified": lambda job, _: timestamp(job.modified),
        "creationTime": lambda job, _: timestamp(job.created),
        "state": lambda job, _: job.state,
        "stateTransitionTime": lambda job, _: timestamp(job.state_changed),
        "previousState": lambda job, _: job.previous_state,
        "previousStateTransitionTime": lambda job, _: _time(job.previous_state_changed),
        "priority": lambda job, _: job.priority,
        "maxParallelTasks": lambda _, view: -1 if view.version >= "2021-06-01" else None,
        "usesTaskDependencies": lambda job, _: job.uses_dependencies,
        "allowTaskPreemption": lambda _, view: False if view.version >= "2022-01-01" else None,
        "constraints": lambda job, _: {
            "maxWallClockTime": duration(job.max_wall_clock),
            "maxTaskRetryCount": job.max_task_retries,
        },
        "jobPreparationTask": _preparation_task,
        "jobReleaseTask": _release_task,
        "poolInfo": _pool_info,
        "metadata": lambda job, _: _pairs(job.metadata),
        "executionInfo": _job_execution,
        "onAllTasksComplete": lambda job, _: job.on_all_tasks_complete,
        "onTaskFailure": lambda *_: "noaction",
    }
)


# Tasks


def task_url(task: Task, view: View) -> str:
    """The task's own URL."""
    return f"{view.base}/jobs/{task.job.id}/tasks/{task.id}"


def _node_url(node: Node, view: View) -> str:
    return f"{view.base}/pools/{node.pool.id}/nodes/{node.id}"


def _task_execution(task: Task, _: View) -> dict[str, Any]:
    return {
        "startTime": _time(task.started),
        "endTime": _time(task.ended),
        "exitCode": task.exit_code,
        "failureInfo": _failure(task.failure),
        "result": task.result,
        "retryCount": task.retry_count,
        "lastRetryTime": _time(task.last_retry),
        "requeueCount": task.requeue_count,
        "lastRequeueTime": _time(task.last_requeue),
    }


def _node_info(task: Task, view: View) -> dict[str, Any] | None:
    node = task.node
    if node is None:
        # Ended before it ever ran: recorded as an empty object. An active task has none at all.
        return {} if task.state == "completed" else None
    url = _node_url(node, view)
    root = f"workitems/{task.job.id}/job-1/{task.id}"
    return {
        "affinityId": f"TVM:{node.id}",
        "nodeUrl": url,
        "poolId": node.pool.id,
        "nodeId": node.id,
        "taskRootDirectory": root,
        "taskRootDirectoryUrl": f"{url}/files/{root}",
    }


def _depends_on(task: Task, _: View) -> dict[str, Any] | None:
    parent = task.depends_on
    return None if parent is None else {"taskIds": [parent.id], "taskIdRanges": []}


def _task_statistics(task: Task, view: View) -> dict[str, Any] | None:
    found = task.statistics(view.tick) if view.statistics else None
    if found is None:
        return None
    return {
        "url": f"{task_url(task, view)}/stats",
        "startTime": timestamp(found.start_time),
        "lastUpdateTime": timestamp(found.last_update_time),
        "userCPUTime": duration(found.user_cpu_time),
        "kernelCPUTime": duration(found.kernel_cpu_time),
        "wallClockTime": duration(found.wall_clock_time),
        "readIOps": str(found.read_iops),
        "writeIOps": str(found.write_iops),
        "readIOGiB": found.read_io_gib,
        "writeIOGiB": found.write_io_gib,
        "waitTime": duration(found.wait_time),
    }


TASK_MEMBERS: Table = MappingProxyType(
    {
        "id": lambda task, _: task.id,
        "url": task_url,
        "eTag": lambda task, _: etag(task.modified),
        "creationTime": lambda task, _: timestamp(task.created),
        "lastModified": lambda task, _: timestamp(task.modified),
        "state": lambda task, _: task.state,
        "stateTransitionTime": lambda task, _: timestamp(task.state_changed),
        "previousState": lambda task, _: task.previous_state,
        "previousStateTransitionTime": lambda task, _: _time(task.previous_state_changed),
        "commandLine": lambda task, _: task.command_line,
        "userIdentity": lambda *_: dict(_USER),
        "constraints": lambda task, _: {
            "maxWallClockTime": duration(INFINITE),
            "retentionTime": duration(7 * DAY),
            "maxTaskRetryCount": task.max_retries,
        },
        "dependsOn": _depends_on,
        "requiredSlots": lambda task, view: (
            task.required_slots if view.version >= "2020-09-01" else None
        ),
        "executionInfo": _task_execution,
        "nodeInfo": _node_info,
        "stats": _task_statistics,
    }
)


# Preparation and release records


def _record_execution(
    record: NodeRecord, view: View, execution: Execution, task_id: str
) -> dict[str, Any]:
    root = f"workitems/{record.job.id}/job-1/{task_id}"
    return {
        "startTime": timestamp(execution.started),
        "endTime": _time(execution.ended),
        "taskRootDirectory": root,
        "taskRootDirectoryUrl": f"{_node_url(record.node, view)}/files/{root}",
        "state": execution.state,
        "exitCode": execution.exit_code,
        "failureInfo": _failure(execution.failure),
        "result": execution.result,
    }


def _preparation_execution(record: NodeRecord, view: View) -> dict[str, Any]:
    execution = record.preparation
    members = _record_execution(record, view, execution, "jobpreparation")
    members["retryCount"] = execution.retry_count
    members["lastRetryTime"] = _time(execution.last_retry)
    return members


def _release_execution(record: NodeRecord, view: View) -> dict[str, Any] | None:
    if record.release is None:
        return None
    return _record_execution(record, view, record.release, "jobrelease")


RECORD_MEMBERS: Table = MappingProxyType(
    {
        "poolId": lambda record, _: record.pool_id,
        "nodeId": lambda record, _: record.node_id,
        "nodeUrl": lambda record, view: _node_url(record.node, view),
        "jobPreparationTaskExecutionInfo": _preparation_execution,
        "jobReleaseTaskExecutionInfo": _release_execution,
    }
)
