"""Read a whole account through azure-batch 14.2.0, and print it as JSON.

Arguments: endpoint, account, key, and the job and task ids of a task that has started.
"""

import json
import sys
from typing import Any

import dump
from azure.batch import BatchServiceClient, models
from azure.batch.batch_auth import SharedKeyCredentials


def dump_account(client: BatchServiceClient, job_of_task: str, task_id: str) -> dict[str, Any]:
    every_seven = models.JobListOptions(max_results=7)
    jobs = {found.id: dump.job(found) for found in client.job.list(every_seven)}
    counts, slots, records, paged, refused, tasks, failed = {}, {}, {}, {}, {}, {}, []
    few = models.JobListPreparationAndReleaseTaskStatusOptions(max_results=3)
    of_failed = models.TaskListOptions(filter="executionInfo/result eq 'failure'", select="id")
    for job_id in jobs:
        found = client.job.get_task_counts(job_id)
        counts[job_id] = dump.counts(found.task_counts)
        slots[job_id] = dump.counts(found.task_slot_counts)
        tasks[job_id] = [dump.task(item) for item in client.task.list(job_id)]
        failed += [item.id for item in client.task.list(job_id, of_failed)]
        listing = client.job.list_preparation_and_release_task_status
        try:
            records[job_id] = [dump.record(item) for item in listing(job_id)]
            paged[job_id] = [item.node_id for item in listing(job_id, few)]
        except models.BatchErrorException as error:
            refused[job_id] = [error.response.status_code, error.error.code]
    task = client.task.get(job_of_task, task_id, models.TaskGetOptions(expand="stats"))
    two_pools = models.AccountListPoolNodeCountsOptions(max_results=2)
    node_counts = client.account.list_pool_node_counts(two_pools)
    return {
        "jobs": jobs,
        "got": {job_id: dump.job(client.job.get(job_id)) for job_id in list(jobs)[:3]},
        "counts": counts,
        "slots": slots,
        "records": records,
        "paged": paged,
        "refused": refused,
        "tasks": tasks,
        "task": dump.task(task) | {"stats": dump.statistics(task.stats)},
        "node_counts": {item.pool_id: dump.node_counts(item) for item in node_counts},
        "pools": {item.id: dump.pool(item) for item in client.pool.list()},
        "failed": failed,
    }


def main(endpoint: str, account: str, key: str, *task: str) -> None:
    client = BatchServiceClient(SharedKeyCredentials(account, key), batch_url=endpoint)
    json.dump(dump_account(client, *task), sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
