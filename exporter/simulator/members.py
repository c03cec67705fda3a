"""The members of jobs and tasks on the wire, in the order of the service.

One row a member: what it holds, given the entity and the View; None where it is left out. The
names are what `$select` may name: all that are documented, those that nothing here has among them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from exporter.simulator.failure_texts import ContainerInfo, Failure
from exporter.simulator.model import Job, Node, Task
from exporter.simulator.ticks import DAY, INFINITE, MINUTE, duration, etag, timestamp
from exporter.simulator.wire import Member, View

Table = Mapping[str, Member]

_USER = MappingProxyType({"autoUser": {"scope": "pool", "elevationLevel": "nonadmin"}})


def shown_time(tick: int | None) -> str | None:
    """A moment that may not have come."""
    return None if tick is None else timestamp(tick)


def _pairs(pairs: tuple[tuple[str, str], ...]) -> list[dict[str, str]] | None:
    return [{"name": name, "value": value} for name, value in pairs] or None


def failure_info(failure: Failure | None) -> dict[str, Any] | None:
    """Why a run failed."""
    if failure is None:
        return None
    return {
        "category": failure.category,
        "code": failure.code,
        "message": failure.message,
        "details": _pairs(failure.details),
    }


def container_info(container: ContainerInfo | None, view: View) -> dict[str, Any] | None:
    """Where a run ran, or why not."""
    if container is None or view.version < "2017-09-01":
        return None
    return {"containerId": container.id, "state": container.state, "error": container.error}


def begun(tick: int, view: View) -> str:
    """When something began. It may lie a fraction of a second ahead."""
    return timestamp(min(tick, view.tick))


def nothing(*_: Any) -> None:
    """A documented member that nothing here has."""


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


def _job_execution(job: Job, view: View) -> dict[str, Any]:
    error = failure_info(job.scheduling_error)
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
        "startTime": begun(job.started, view),
        "endTime": shown_time(job.ended),
        "poolId": job.pool.id if job.pool.made else None,
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
        "previousStateTransitionTime": lambda job, _: shown_time(job.previous_state_changed),
        "priority": lambda job, _: job.priority,
        "maxParallelTasks": lambda _, view: -1 if view.version >= "2021-06-01" else None,
        "usesTaskDependencies": lambda job, _: job.uses_dependencies,
        "allowTaskPreemption": lambda _, view: False if view.version >= "2022-01-01" else None,
        "constraints": lambda job, _: {
            "maxWallClockTime": duration(job.max_wall_clock),
            "maxTaskRetryCount": job.max_task_retries,
        },
        "jobManagerTask": nothing,
        "jobPreparationTask": _preparation_task,
        "jobReleaseTask": _release_task,
        "commonEnvironmentSettings": nothing,
        "poolInfo": _pool_info,
        "networkConfiguration": nothing,
        "metadata": lambda job, _: _pairs(job.metadata),
        "executionInfo": _job_execution,
        "onAllTasksComplete": lambda job, _: job.on_all_tasks_complete,
        "onTaskFailure": lambda *_: "noaction",
        "stats": nothing,
    }
)


# Tasks


def task_url(task: Task, view: View) -> str:
    """The task's own URL."""
    return f"{view.base}/jobs/{task.job.id}/tasks/{task.id}"


def node_url(node: Node, view: View) -> str:
    return f"{view.base}/pools/{node.pool.id}/nodes/{node.id}"


def _task_execution(task: Task, view: View) -> dict[str, Any]:
    return {
        "startTime": shown_time(task.started),
        "endTime": shown_time(task.ended),
        "exitCode": task.exit_code,
        "containerInfo": container_info(task.container, view),
        "failureInfo": failure_info(task.failure),
        "result": task.shown_result,
        "retryCount": task.retry_count,
        "lastRetryTime": shown_time(task.last_retry),
        "requeueCount": task.requeue_count,
        "lastRequeueTime": shown_time(task.last_requeue),
    }


def _node_info(task: Task, view: View) -> dict[str, Any] | None:
    node = task.node
    if node is None:
        # Ended before it ever ran: recorded as an empty object. An active task has none at all.
        return {} if task.state == "completed" else None
    url = node_url(node, view)
    root = f"workitems/{task.job.id}/job-1/{task.id}"
    return {
        "affinityId": f"TVM:{node.id}",
        "nodeUrl": url,
        "poolId": view.pool_id(node.pool.id),
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
        "displayName": nothing,
        "url": task_url,
        "eTag": lambda task, _: etag(task.modified),
        "creationTime": lambda task, view: begun(task.created, view),
        "lastModified": lambda task, view: begun(task.modified, view),
        "state": lambda task, _: task.state,
        "stateTransitionTime": lambda task, view: begun(task.state_changed, view),
        "previousState": lambda task, _: task.previous_state,
        "previousStateTransitionTime": lambda task, view: (
            None
            if task.previous_state_changed is None
            else begun(task.previous_state_changed, view)
        ),
        "commandLine": lambda task, _: task.command_line,
        **dict.fromkeys(
            (
                "containerSettings",
                "resourceFiles",
                "outputFiles",
                "environmentSettings",
                "affinityInfo",
                "exitConditions",
                "multiInstanceSettings",
                "applicationPackageReferences",
                "authenticationTokenSettings",
            ),
            nothing,
        ),
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
