"""Read a whole account through azure-batch 15.1.0, and print it as JSON.

Arguments: endpoint, account, key, and `sync` or `aio` for which of its clients to use.
"""

import asyncio
import json
import sys
from typing import Any

import dump
from azure.batch import BatchClient
from azure.batch.aio import BatchClient as AsyncBatchClient
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError


class SyncReader:
    """The synchronous client behind the asynchronous one's manners."""

    def __init__(self, client: BatchClient) -> None:
        self._client = client

    async def read(self, operation: str, *arguments: str, **options: Any) -> Any:
        found = getattr(self._client, operation)(*arguments, **options)
        return list(found) if operation.startswith("list_") else found


class AsyncReader:
    """The asynchronous client."""

    def __init__(self, client: AsyncBatchClient) -> None:
        self._client = client

    async def read(self, operation: str, *arguments: str, **options: Any) -> Any:
        called = getattr(self._client, operation)(*arguments, **options)
        if operation.startswith("list_"):
            return [item async for item in called]
        return await called


async def dump_account(read: Any, task_with_stats: list[str], *, colons: bool) -> dict[str, Any]:
    """`colons`: read the parts of jobs with a colon in their id, too."""
    listed_jobs = await read("list_jobs", max_results=7)
    jobs = {found.id: dump.job(found) for found in listed_jobs if colons or ":" not in found.id}
    counts, slots, records, paged, refused, tasks = {}, {}, {}, {}, {}, {}
    for job_id in jobs:
        found = await read("get_job_task_counts", job_id)
        counts[job_id] = dump.counts(found.task_counts)
        slots[job_id] = dump.counts(found.task_slot_counts)
        listed = await read("list_tasks", job_id)
        tasks[job_id] = [dump.task(item) for item in listed]
        operation = "list_job_preparation_and_release_task_status"
        try:
            records[job_id] = [dump.record(item) for item in await read(operation, job_id)]
            few = await read(operation, job_id, max_results=3)
            paged[job_id] = [item.node_id for item in few]
        except HttpResponseError as error:
            refused[job_id] = [error.status_code, error.model.code]
    task = await read("get_task", *task_with_stats, expand=["stats"])
    node_counts = await read("list_pool_node_counts", max_results=2)
    return {
        "jobs": jobs,
        "got": {job_id: dump.job(await read("get_job", job_id)) for job_id in list(jobs)[:3]},
        "counts": counts,
        "slots": slots,
        "records": records,
        "paged": paged,
        "refused": refused,
        "tasks": tasks,
        "task": dump.task(task) | {"stats": dump.statistics(task.task_statistics)},
        "node_counts": {item.pool_id: dump.node_counts(item) for item in node_counts},
        "pools": {item.id: dump.pool(item) for item in await read("list_pools")},
        "failed": [
            item.id
            for job_id in jobs
            for item in await read(
                "list_tasks", job_id, filter="executionInfo/result eq 'failure'", select=["id"]
            )
        ],
    }


async def main(endpoint: str, account: str, key: str, kind: str, *task: str) -> None:
    credential = AzureNamedKeyCredential(account, key)
    if kind == "sync":
        with BatchClient(endpoint, credential) as client:
            found = await dump_account(SyncReader(client).read, list(task), colons=True)
    else:
        # The path is signed with %3A, then aiohttp sends a colon: azure-core does not stop it.
        async with AsyncBatchClient(endpoint, credential) as async_client:
            found = await dump_account(AsyncReader(async_client).read, list(task), colons=False)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
