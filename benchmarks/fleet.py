"""An account with 100,000 jobs, polled by ten shards: how even, how fresh, and at what cost.

The program's own timetable, poller, client and store run in virtual time; the account answers at
once with a few bytes that were made up. Each shard is a process of its own, one after the other,
so memory and CPU are one shard's; of CPU, what HTTP and TLS take is not in it. Prints two tables.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from yarl import URL

from exporter import config
from exporter.config import Rule
from exporter.config.shard import Shard
from exporter.exposition.body import Format
from exporter.service.telemetry import AccountTelemetry, Telemetry
from tests import virtual_time
from tests.offline import ENDPOINT, START, Watch, now, watch

ACCOUNT = "fleet"
PAGE = 1000
COLLECTORS = ("task_counts", "preparation_release")
SCRAPE_INTERVAL = 30.0
HEADROOM = 1.25
"""The budget, by what the first round of polls needs on average."""

SINGLE = {"id_regex": ".*"}
GROUPED = {"id_regex": "(?P<pipeline>pipeline-[0-9]+)-run-.*", "group": "${pipeline}"}

NODE = (
    b'{"value":[{"poolId":"pool","nodeId":"node","jobPreparationTaskExecutionInfo":{"state":'
    b'"completed","startTime":"2026-06-01T11:00:00Z","endTime":"2026-06-01T11:00:09Z","exitCode":0,'
    b'"result":"success","retryCount":0}}]}'
)
NOTHING = b'{"value":[]}'
NOT_CONFIGURED = b'{"code":"JobPreparationTaskNotSpecified"}'


@dataclass(frozen=True)
class Row:
    """What one shard did. Seconds, MiB, and requests per second."""

    shard: str
    jobs: int
    series: int
    requests: float
    largest_second: float
    of_polls: float
    budget: float
    oldest_at_end: float
    oldest: float
    lag_p99: float
    lag: float
    cpu_per_minute: float
    listing_cpu: float
    memory: float


TITLES = (
    "shard",
    "jobs",
    "series",
    "requests/s",
    "largest second / mean",
    "without listings",
    "budget",
    "oldest sample at the end (s)",
    "ever (s)",
    "poll lag, 99 % (s)",
    "largest (s)",
    "CPU seconds per minute",
    "of these for a listing",
    "memory (MiB)",
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=10)
    parser.add_argument(
        "--run", type=int, default=4, help="so many of them, for one is much like another"
    )
    parser.add_argument("--interval", type=float, default=60.0, help="seconds between two polls")
    parser.add_argument("--group", action="store_true", help="97 groups instead of single jobs")
    parser.add_argument("--shard", type=Shard.parse, help="this one alone, as JSON")
    parser.add_argument("--small", action="store_true", help="a hundredth of the jobs, one shard")
    options = parser.parse_args()
    if options.small:
        options.jobs, options.run = 1000, 1
    if options.shard is not None:
        rule = GROUPED if options.group else SINGLE
        row = virtual_time.run(measure(options.jobs, options.shard, options.interval, rule))
        print(json.dumps(asdict(row)))
        return
    print(f"| {' | '.join(TITLES)} |\n|{'---|' * len(TITLES)}")
    for index in range(min(options.run, options.shards)):
        child = subprocess.run(
            [
                sys.executable,
                __file__,
                f"--jobs={options.jobs}",
                f"--interval={options.interval}",
                f"--shard={index}/{options.shards}",
                *(["--group"] if options.group else []),
            ],
            stdout=subprocess.PIPE,
            check=True,
        )
        row = Row(**json.loads(child.stdout))
        cells = (getattr(row, column.name) for column in fields(row))
        print(f"| {' | '.join(map(_cell, cells))} |", flush=True)
    print("\n| shards | jobs that move | at the least |\n|---|---|---|")
    for count in (options.shards + 1, options.shards - 1):
        if count > 0:
            share = moved(options.jobs, options.shards, count)
            least = 1 / max(count, options.shards)
            print(f"| {options.shards} to {count} | {share:.2%} | {least:.2%} |")


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def job_ids(jobs: int) -> Iterator[str]:
    """The ids of all jobs of the account."""
    return (f"pipeline-{number % 97}-run-{number}" for number in range(jobs))


def moved(jobs: int, before: int, after: int) -> float:
    """The share of the jobs that another shard owns than before."""
    return sum(_owner(job_id, before) != _owner(job_id, after) for job_id in job_ids(jobs)) / jobs


def _owner(job_id: str, count: int) -> int:
    return next(index for index in range(count) if Shard(index, count).owns(ACCOUNT, job_id))


class Account:
    """The account's answers.

    Every job always works on something, so none is ever idle; every second has preparation.
    """

    def __init__(self, jobs: int) -> None:
        ids = list(job_ids(jobs))
        self._pages = [_page(ids, first) for first in range(0, jobs, PAGE)]
        self.asked_at: list[float] = []
        self.polled_at: list[float] = []

    def answer(self, url: URL) -> tuple[int, bytes]:
        """A few bytes for each request, and the time of it noted."""
        at = asyncio.get_running_loop().time()
        self.asked_at.append(at)
        path = url.raw_path
        if path != "/jobs":
            self.polled_at.append(at)
        if path.endswith("/taskcounts"):
            done = int(at)  # which differs from poll to poll
            counts = f'{{"active":9,"running":3,"completed":{done},"succeeded":{done},"failed":0}}'
            return 200, f'{{"taskCounts":{counts},"taskSlotCounts":{counts}}}'.encode()
        if path == "/jobs":
            return 200, self._pages[int(url.query.get("$skiptoken", "0"))]
        if path == "/nodecounts":
            return 200, NOTHING
        if int(path.split("/")[2].rpartition("-")[2]) % 2:
            return 409, NOT_CONFIGURED
        return 200, NOTHING if "$filter" in url.query else NODE


def _page(ids: list[str], first: int) -> bytes:
    jobs = [
        {
            "id": job_id,
            "state": "active",
            "stateTransitionTime": "2026-06-01T10:00:01Z",
            "creationTime": "2026-06-01T10:00:00Z",
            "priority": 0,
            "poolInfo": {"poolId": "pool"},
            "executionInfo": {"startTime": "2026-06-01T10:00:01Z", "poolId": "pool"},
        }
        for job_id in ids[first : first + PAGE]
    ]
    page: dict[str, Any] = {"value": jobs}
    if first + PAGE < len(ids):
        page["odata.nextLink"] = f"{ENDPOINT}/jobs?$skiptoken={first // PAGE + 1}"
    return json.dumps(page).encode()


class Observer:
    """The program's own, that notes each poll's lag beside."""

    def __init__(self) -> None:
        self._own = AccountTelemetry(Telemetry(""), ACCOUNT)
        self.lags: list[float] = []

    def poll_started(self, lag: float) -> None:
        """Note it."""
        self.lags.append(lag)
        self._own.poll_started(lag)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


async def measure(jobs: int, shard: Shard, interval: float, given: Mapping[str, str]) -> Row:
    """Poll for a listing, a first round and an interval more, which is measured."""
    account, observer = Account(jobs), Observer()
    budget = HEADROOM * (jobs / shard.count * len(COLLECTORS) + len(account._pages)) / interval
    gc.collect()
    gc.freeze()  # the answers are not the program's
    before = _memory()
    rule = Rule.model_validate({"interval": f"{interval:.0f}s", "collect": COLLECTORS, **given})
    settings = config.Account(
        name=ACCOUNT,
        endpoint="https://account.example",
        jobs=(rule,),
        discovery_interval=f"{interval:.0f}s",
        max_concurrency=64,
        max_jobs=jobs,
    )
    defaults = config.Defaults(interval=f"{interval:.0f}s")
    telemetry = cast(AccountTelemetry, observer)
    service = watch(account.answer, settings, budget, telemetry, defaults, shard)
    polling = asyncio.create_task(service.run())
    while not service.store.jobs(ACCOUNT):
        await asyncio.sleep(1.0)
    await asyncio.sleep(interval + 1.0)
    began, spent = asyncio.get_running_loop().time(), time.process_time()
    observer.lags.clear()
    ages = []
    while (until := asyncio.get_running_loop().time()) < began + interval:
        await asyncio.sleep(min(SCRAPE_INTERVAL / 3, interval / 6))
        ages.append(oldest_sample(service))
        if len(ages) % 3 == 0:
            service.exposition.body(Format.TEXT)
    cpu = time.process_time() - spent
    asked, polled = (
        times[bisect_left(times, began) : bisect_left(times, until)]
        for times in (account.asked_at, account.polled_at)
    )
    lags = sorted(observer.lags)
    memory = _memory() - before
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    spent = time.process_time()
    await service.poller._poll_jobs(("jobs",))
    return Row(
        shard=str(shard),
        jobs=len(service.store.jobs(ACCOUNT)),
        series=service.exposition.body(Format.TEXT).series,
        requests=len(asked) / (until - began),
        largest_second=largest_second(asked) / (len(asked) / (until - began)),
        of_polls=largest_second(polled) / (len(polled) / (until - began)),
        budget=budget,
        oldest_at_end=ages[-1],
        oldest=max(ages),
        lag_p99=lags[int(0.99 * len(lags))],
        lag=lags[-1],
        cpu_per_minute=cpu / (until - began) * 60.0,
        listing_cpu=time.process_time() - spent,
        memory=memory,
    )


def oldest_sample(service: Watch) -> float:
    """Seconds since the poll of a job that is the longest ago."""
    found = (
        service.store.outcome(ACCOUNT, collector, job_id).succeeded_at or START.timestamp()
        for job_id in service.store.jobs(ACCOUNT)
        for collector in COLLECTORS
    )
    return now().timestamp() - min(found)


def largest_second(times: list[float]) -> int:
    """The most of these in any second."""
    first = most = 0
    for last, moment in enumerate(times):
        while times[first] <= moment - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def _memory() -> float:
    """What this process takes now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
