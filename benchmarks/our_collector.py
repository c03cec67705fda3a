"""This program's own way from its configuration to what a scrape would show, in turns.

Nothing is left out: the polls of a real service, with timetable, budget, client, decoding, folding,
counters, text and its own metrics. `--bare` is none of that: requests alone, signed and read.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from benchmarks.harness import answer
from exporter.batch.auth import SharedKeyAuth
from exporter.config import Config, loader
from exporter.exposition.body import Format
from exporter.service.allocator import fix_thresholds
from exporter.service.service import Service, open_service
from exporter.service.supervision import supervised

KEY_VARIABLE = "BENCHMARK_KEY"
COLLECTORS = {"records": "preparation_release", "counts": "task_counts"}
CONCURRENCY = 16
API_VERSION = "2024-07-01.20.0"

Turn = Callable[[str], Awaitable[Mapping[str, Any]]]


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=COLLECTORS)
    parser.add_argument("--account", required=True, help="JSON: endpoint, account, key")
    parser.add_argument("--interval", type=int, default=0)
    parser.add_argument("--bare", action="store_true")
    options = parser.parse_args()
    account = json.loads(options.account)
    logging.disable(logging.WARNING)  # runs that fail are told there
    fix_thresholds()  # as the daemon does
    if options.bare:
        asyncio.run(run_bare(account))
    else:
        asyncio.run(run(account, COLLECTORS[options.what], options.interval))


def config_of(account: Mapping[str, str], collector: str, interval: int) -> Config:
    """All jobs with one collector, and no limit that would be met."""
    os.environ[KEY_VARIABLE] = account["key"]
    return loader.parse(
        json.dumps(
            {
                "defaults": {
                    "interval": f"{interval or 60}s",
                    "idle_interval": "0s",
                    "resync_interval": "0s",
                    "collect": [collector],
                },
                "accounts": [
                    {
                        "name": account["account"],
                        "endpoint": account["endpoint"],
                        "api_version": API_VERSION,
                        "auth": {"method": "shared_key", "key_env": KEY_VARIABLE},
                        "requests_per_second": 100_000,
                        "max_concurrency": CONCURRENCY,
                        "request_timeout": "60s",
                        "discovery_interval": f"{max(interval, 60)}s",
                        "pool_nodes": False,
                    }
                ],
            }
        ),
        "benchmark",
        Path(),
    )


async def run(account: Mapping[str, str], collector: str, interval: int) -> None:
    """`poll` everything; `forget` what is known; how much is `shown`, to be sure of both sides."""
    config = config_of(account, collector, interval)
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(open_service(config))

        async def turn(command: str) -> Mapping[str, Any]:
            nonlocal service
            if command == "forget":
                await stack.aclose()
                service = await stack.enter_async_context(open_service(config))
                return {}
            if command == "shown":
                return {"total": total(service.exposition.body(Format.TEXT).plain)}
            before = polls(service, account["account"], collector)
            if interval:
                await one_interval(service, account["account"], collector, interval)
            else:
                await service.run_once()
            return {"polls": polls(service, account["account"], collector) - before}

        await answer(turn)


async def one_interval(service: Service, account: str, collector: str, interval: int) -> None:
    """Let the timetable run until each job was polled."""
    known = len(service.store.jobs(account))
    wanted = polls(service, account, collector) + known
    # The service would go on polling while it is the others' turn.
    poller = service._accounts[account].poller
    tasks = [
        asyncio.create_task(supervised("polls", poller.run, service.telemetry.internal_error)),
        asyncio.create_task(service._flush()),
    ]
    await asyncio.sleep(interval)
    while known and polls(service, account, collector) < wanted:
        await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def polls(service: Service, account: str, collector: str) -> int:
    """How many there have been, by the exporter's own metric."""
    histogram = service.telemetry.histogram("azure_batch_exporter_poll_duration_seconds")
    return int(sum(bucket.get() for bucket in histogram.labels(account, collector)._buckets))


def total(text: bytes) -> float:
    """All nodes, or tasks, by state together."""
    names = re.compile(
        rb"^azure_batch_job_(?:preparation_|release_)?tasks\{.* (\S+)$", re.MULTILINE
    )
    return sum(map(float, names.findall(text)))


async def run_bare(account: Mapping[str, str]) -> None:
    """Each job's task counts, read and thrown away."""
    auth = SharedKeyAuth(account["account"], base64.b64decode(account["key"]))
    turns = asyncio.Semaphore(CONCURRENCY)
    async with aiohttp.ClientSession() as session:

        async def get(url: str) -> bytes:
            headers = {"Accept": "application/json"}
            headers |= await auth.headers("GET", url, headers)
            async with session.get(URL(url, encoded=True), headers=headers) as response:
                assert response.status == 200, response.status
                return await response.read()

        async def get_counts(job_id: str) -> None:
            async with turns:
                url = f"{account['endpoint']}/jobs/{job_id}/taskcounts?api-version={API_VERSION}"
                await get(url)

        async def turn(command: str) -> Mapping[str, Any]:
            if command == "forget":
                return {}
            url: str | None = f"{account['endpoint']}/jobs?api-version={API_VERSION}&$select=id"
            job_ids: list[str] = []
            while url is not None:
                page = json.loads(await get(url))
                job_ids += [job["id"] for job in page["value"]]
                url = page.get("odata.nextLink")
            await asyncio.gather(*map(get_counts, job_ids))
            return {"polls": len(job_ids)}

        await answer(turn)


if __name__ == "__main__":
    main()
