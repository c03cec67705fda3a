"""Reading the nodes of a large job by changes against reading all of them.

One job with 100,000 node records, of which about 1 % change between two polls. The simulated
account is a process of its own, so that only the exporter's CPU is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime

import aiohttp

from exporter.batch import transport as transport_module
from exporter.batch.auth import SharedKeyAuth
from exporter.batch.budget import Budget
from exporter.batch.client import BatchClient
from exporter.batch.models import Job
from exporter.batch.transport import Transport
from exporter.collectors import preparation_release
from exporter.config import Defaults, JobRule
from exporter.selection import WatchedJob, resolve
from exporter.simulator import Clock, many_records, serve

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = 60.0
ROUNDS = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    asyncio.run(simulate(options.records) if options.serve else measure(options.records))


async def simulate(records: int) -> None:
    """Serve the account; each line on standard input moves its time on by a minute."""
    world = many_records(records, changed_per_minute=0.01, start=START)
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


async def measure(records: int) -> None:
    """Poll the job in both ways and print what each cost."""
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", f"--records={records}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None and server.stdout is not None
    endpoint, account, key = server.stdout.readline().split()
    received = 0

    read = transport_module._read

    async def counting(response: aiohttp.ClientResponse) -> bytes:
        nonlocal received
        body = await read(response)
        received += len(body)
        return body

    transport_module._read = counting
    async with aiohttp.ClientSession() as session:
        transport = Transport(
            session=session,
            auth=SharedKeyAuth(account, base64.b64decode(key)),
            budget=Budget(1000.0, lambda _: None),
            observer=Unobserved(),
            request_timeout=60.0,
        )
        client = BatchClient(endpoint, "2024-07-01.20.0", transport)
        now = START.timestamp()
        costs: dict[str, list[tuple[float, int, int]]] = {"full": [], "changes": []}
        states: dict[str, preparation_release.PreparationRelease | None] = {}
        watched = {
            name: WatchedJob(
                Job("large-1"),
                resolve(JobRule(id="large-1", resync_interval=interval), Defaults()),
            )
            for name, interval in (("full", "0s"), ("changes", "1d"))
        }
        for _ in range(ROUNDS + 1):
            for name, job in watched.items():
                received, started = 0, time.process_time()
                reading = await preparation_release.read(client, job, states.get(name), now)
                folded = preparation_release.fold(states.get(name), reading, now, False)
                spent = time.process_time() - started
                if name in states:  # the first listing is full in both ways
                    costs[name].append((spent, received, len(reading.nodes or ())))
                states[name] = folded.state
            server.stdin.write("\n")
            server.stdin.flush()
            server.stdout.readline()
            now += MINUTE
    server.stdin.close()
    server.wait()
    assert states["full"] == states["changes"] or _same(states)
    print(f"{records} node records, about 1 % of which change from poll to poll\n")
    print("| a poll | CPU ms | bytes read | records read |\n|---|---|---|---|")
    medians = {
        name: [statistics.median(column) for column in zip(*of, strict=True)]
        for name, of in costs.items()
    }
    for name, (spent, size, count_) in medians.items():
        print(f"| {name} | {spent * 1000:.1f} | {size:.0f} | {count_:.0f} |")
    full, changes = medians["full"], medians["changes"]
    print(f"\nchanges / full: CPU {changes[0] / full[0]:.1%}, bytes {changes[1] / full[1]:.1%}")


def _same(states: dict[str, preparation_release.PreparationRelease | None]) -> bool:
    """Whether both ways came to the same nodes, whenever each listed them last."""
    full, changes = states["full"], states["changes"]
    assert full is not None and changes is not None
    return (full.preparation, full.release) == (changes.preparation, changes.release)


if __name__ == "__main__":
    main()
