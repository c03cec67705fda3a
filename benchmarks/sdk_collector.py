"""What one would write instead: Microsoft's client, and gauges of prometheus_client.

It runs in the environment of the SDK. The client is used as its documentation says, with all its
defaults; every attribute is read once a record, because reading one converts it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from azure.batch.aio import BatchClient
from azure.core.credentials import AzureNamedKeyCredential
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from benchmarks.harness import answer

CONCURRENCY = 16

MEMBERS = ["poolId", "nodeId", "jobPreparationTaskExecutionInfo", "jobReleaseTaskExecutionInfo"]
"""As the exporter asks. It leaves out one member, a URL: what is not sent is not parsed."""

Labels = tuple[str, ...]


class Gauges:
    """A gauge whose children are those of the latest poll of each job."""

    def __init__(self, registry: CollectorRegistry, name: str, *labels: str) -> None:
        self._gauge = Gauge(name, name, ("account", "job_id", *labels), registry=registry)
        self._shown: dict[str, set[Labels]] = {}

    def show(self, account: str, job_id: str, values: Mapping[Labels, float]) -> None:
        """Set a job's values; those that it had and has no more go."""
        for labels, value in values.items():
            self._gauge.labels(account, job_id, *labels).set(value)
        for labels in self._shown.get(job_id, set()) - values.keys():
            self._gauge.remove(account, job_id, *labels)
        self._shown[job_id] = set(values)

    def total(self) -> float:
        """The values of all jobs together."""
        return sum(s.value for family in self._gauge.collect() for s in family.samples)


class Collector:
    """Polls the jobs of an account into gauges."""

    def __init__(self, client: BatchClient, account: str, registry: CollectorRegistry) -> None:
        self._client = client
        self._account = account
        kind_and_pool = ("kind", "pool_id")
        self._nodes = Gauges(registry, "batch_job_nodes", *kind_and_pool, "state")
        self._completed = Gauges(registry, "batch_job_nodes_completed", *kind_and_pool, "result")
        self._failed = Gauges(
            registry, "batch_job_nodes_failed", *kind_and_pool, "category", "code"
        )
        self._oldest = Gauges(registry, "batch_job_oldest_running_seconds", *kind_and_pool)
        self._tasks = Gauges(registry, "batch_job_tasks", "state")
        self._task_results = Gauges(registry, "batch_job_tasks_completed", "result")
        self._slots = Gauges(registry, "batch_job_task_slots", "state")
        self._slot_results = Gauges(registry, "batch_job_task_slots_completed", "result")

    def total(self) -> float:
        """All nodes, or tasks, by state together."""
        return sum(gauges.total() for gauges in (self._nodes, self._tasks))

    async def job_ids(self) -> list[str]:
        """The jobs that the account lists."""
        listed = self._client.list_jobs(select=["id", "state"])
        return [job.id async for job in listed]

    async def poll_records(self, job_id: str) -> None:
        """Preparation and release on all nodes of a job."""
        nodes: Counter[Labels] = Counter()
        completed: Counter[Labels] = Counter()
        failed: Counter[Labels] = Counter()
        oldest: dict[Labels, datetime] = {}
        async for record in self._client.list_job_preparation_and_release_task_status(
            job_id, select=MEMBERS
        ):
            pool_id = record.pool_id
            for kind, run in (
                ("preparation", record.job_preparation_task_execution_info),
                ("release", record.job_release_task_execution_info),
            ):
                if run is None:
                    continue
                state, result = text_of(run.state), text_of(run.result)
                nodes[kind, pool_id, state] += 1
                if state == "running":
                    start = run.start_time
                    oldest[kind, pool_id] = min(start, oldest.get((kind, pool_id), start))
                if result:
                    completed[kind, pool_id, result] += 1
                if result == "failure":
                    failure = run.failure_info
                    failed[kind, pool_id, text_of(failure.category), failure.code or ""] += 1
        for gauges, values in (
            (self._nodes, nodes),
            (self._completed, completed),
            (self._failed, failed),
            (self._oldest, {labels: start.timestamp() for labels, start in oldest.items()}),
        ):
            gauges.show(self._account, job_id, values)

    async def poll_counts(self, job_id: str) -> None:
        """Task counts of a job."""
        found = await self._client.get_job_task_counts(job_id)
        for counts, states, results in (
            (found.task_counts, self._tasks, self._task_results),
            (found.task_slot_counts, self._slots, self._slot_results),
        ):
            states.show(
                self._account,
                job_id,
                {
                    ("active",): counts.active,
                    ("running",): counts.running,
                    ("completed",): counts.completed,
                },
            )
            results.show(
                self._account,
                job_id,
                {("success",): counts.succeeded, ("failure",): counts.failed},
            )

    async def poll_all(self, what: str, interval: float) -> Mapping[str, Any]:
        """Poll each job once, as fast as it goes or spread over an interval."""
        poll = {"records": self.poll_records, "counts": self.poll_counts}[what]
        turns = asyncio.Semaphore(CONCURRENCY)
        job_ids = await self.job_ids()

        async def poll_one(job_id: str, wait: float) -> None:
            if wait:
                await asyncio.sleep(wait)
            async with turns:
                await poll(job_id)

        gap = interval / len(job_ids)
        await asyncio.gather(
            *(poll_one(job_id, number * gap) for number, job_id in enumerate(job_ids))
        )
        return {"polls": len(job_ids)}


def text_of(value: Any) -> str:
    """The word for an enumeration's value; one that the SDK does not know is a string already."""
    return str(getattr(value, "value", value or ""))


def main() -> None:
    """Take turns, or serve metrics on a port."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("records", "counts"))
    parser.add_argument("--account", required=True, help="JSON: endpoint, account, key")
    parser.add_argument("--interval", type=float, default=0.0)
    parser.add_argument("--port", type=int, help="only serve metrics there")
    options = parser.parse_args()
    account = json.loads(options.account)
    asyncio.run(run(options.what, account, options.interval, options.port))


async def run(what: str, account: Mapping[str, str], interval: float, port: int | None) -> None:
    """Connect, and do as told."""
    name = account["account"]
    credential = AzureNamedKeyCredential(name, account["key"])
    async with BatchClient(account["endpoint"], credential) as client:
        collector = Collector(client, name, CollectorRegistry())
        if port is not None:
            start_http_server(port, "127.0.0.1")
            await wait_for_a_signal()
            return

        async def turn(command: str) -> Mapping[str, Any]:
            nonlocal collector
            if command == "forget":
                collector = Collector(client, name, CollectorRegistry())
                return {}
            if command == "shown":
                return {"total": collector.total()}
            return await collector.poll_all(what, interval)

        await answer(turn)


async def wait_for_a_signal() -> None:
    """Return on SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


if __name__ == "__main__":
    main()
