"""Reading the nodes and the tasks of a large job by changes against reading all of them.

One job with 100,000 node records, and one with as many tasks, of which about 1 % change between
two polls. Whole polls are measured, from the request to what the next scrape would show. The
simulated account is a process of its own, so that only the exporter's CPU counts.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from benchmarks.harness import ROOT, environment
from exporter import collectors
from exporter.batch.auth import SharedKeyAuth
from exporter.batch.budget import Budget
from exporter.batch.client import BatchClient
from exporter.batch.models import Job
from exporter.batch.session import Answer, Session
from exporter.batch.transport import Transport
from exporter.config import Defaults, JobRule
from exporter.config.resolved_rule import resolve
from exporter.exposition.body import Exposition
from exporter.simulator import Clock, World, many_records, many_tasks, serve
from exporter.state.failures import Failures
from exporter.state.journal import Saved
from exporter.state.store import Store
from exporter.state.totals import Totals
from exporter.state.watched_job import SelectedJobs, WatchedJob

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = 60.0
ROUNDS = 9

WARM_UP = 4
"""Polls by changes until one reads as much as any later one: they overlap, and the job that is
found begins to change with the first."""

JOB = Job("large-1")
WORLDS: dict[str, tuple[Callable[..., World], Callable[[Any], int]]] = {
    "preparation_release": (
        many_records,
        lambda reading: sum(map(len, reading.pages[0].seen.runs.values())),
    ),
    "tasks": (many_tasks, lambda reading: len(reading.tasks)),
}
"""Of each collector: what it reads here, and the number of records in a reading."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--small", action="store_true", help="a twentieth of the records")
    parser.add_argument("--serve", choices=WORLDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # tasks that fail are told there
    if options.serve:
        asyncio.run(simulate(options.serve, options.records))
        return
    records = options.records // 20 if options.small else options.records
    print(f"{records} records, about 1 % of which change from poll to poll\n")
    print("| collector | a poll | CPU ms | bytes read | records read |\n|---|---|---|---|---|")
    for collector in WORLDS:
        asyncio.run(measure(collector, records))
    print(flush=True)


async def simulate(collector: str, records: int) -> None:
    """Serve the account; each line on standard input moves its time on by a minute."""
    world = WORLDS[collector][0](records, changed_per_minute=0.01, start=START)
    clock = Clock(START, speed=0.0)
    async with serve(world, clock) as simulation:
        print(simulation.endpoint, simulation.account_name, simulation.account_key, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            clock.advance(MINUTE)
            world.advance(clock.now())
            print("moved", flush=True)


class Unobserved:
    """Takes what the client tells."""

    def request_done(self, operation: str, code: str, seconds: float) -> None: ...

    def retried(self, operation: str) -> None: ...


class Exporter:
    """Polls the job with one collector, in one way."""

    def __init__(self, collector: str, resync_interval: str) -> None:
        self._collector = collector
        rule = resolve(JobRule(id=JOB.id, resync_interval=resync_interval), Defaults())
        self._watched = WatchedJob(JOB, rule)
        exposition = Exposition(collectors.tables())
        self._store = Store(exposition, Totals(exposition), Failures())
        self._store.add_account("a", Saved(), lambda _: None)
        self._store.select("a", SelectedJobs((self._watched,)), 0.0)

    @property
    def state(self) -> Any:
        """What is known of the job."""
        return self._store.outcome("a", self._collector, JOB.id).state

    async def poll(self, client: BatchClient, now: float) -> int:
        """Read and store; gives the number of records. What was read is freed in here, too."""
        kind = collectors.JOB_COLLECTORS[self._collector]
        state = self.state
        reading = await kind.read(client, self._watched, state, now)
        self._store.put_reading("a", JOB, self._collector, reading, state, now)
        self._store.flush()
        return WORLDS[self._collector][1](reading)


async def measure(collector: str, records: int) -> None:
    """Poll the job in both ways and print what each cost."""
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "benchmarks.incremental"),
            *(f"--serve={collector}", f"--records={records}"),
        ],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None and server.stdout is not None
    endpoint, account, key = server.stdout.readline().split()
    received = 0

    class CountingSession(Session):
        async def get(self, url: str, headers: Mapping[str, str]) -> Answer:
            nonlocal received
            answer = await super().get(url, headers)
            received += len(answer.body)
            return answer

    ways = {"full": Exporter(collector, "0s"), "changes": Exporter(collector, "1d")}
    costs: dict[str, list[tuple[float, int, int]]] = {way: [] for way in ways}
    transport = Transport(
        http=CountingSession(endpoint),
        auth=SharedKeyAuth(account, base64.b64decode(key)),
        budget=Budget(1000.0, lambda _: None),
        observer=Unobserved(),
        request_timeout=60.0,
    )
    client = BatchClient(endpoint, "2024-07-01.20.0", transport)
    for number in range(WARM_UP + ROUNDS):
        now = START.timestamp() + number * MINUTE
        for way, exporter in ways.items():
            if way == "full" and 0 < number < WARM_UP - 1:
                continue
            gc.collect()  # lest one way pays for what the other leaves behind
            received, started = 0, time.process_time()
            count = await exporter.poll(client, now)
            if number >= WARM_UP:
                costs[way].append((time.process_time() - started, received, count))
        server.stdin.write("\n")
        server.stdin.flush()
        server.stdout.readline()
    await transport.close()
    server.stdin.close()
    server.wait()
    full, changes = (replace(ways[way].state, read_at=0.0, listed_at=0.0) for way in ways)
    assert full == changes, "reading by changes missed something"
    report(collector, costs)


def report(collector: str, costs: dict[str, list[tuple[float, int, int]]]) -> None:
    """Print the medians of both ways, and how they compare."""
    medians = {
        way: [statistics.median(column) for column in zip(*of, strict=True)]
        for way, of in costs.items()
    }
    for way, (spent, size, count) in medians.items():
        print(f"| {collector} | {way} | {spent * 1000:.1f} | {size:.0f} | {count:.0f} |")
    full, changes = medians["full"], medians["changes"]
    cpu, size = (part / whole for part, whole in zip(changes[:2], full[:2], strict=True))
    print(f"| {collector} | changes / full | {cpu:.1%} | {size:.1%} | |", flush=True)


if __name__ == "__main__":
    main()
