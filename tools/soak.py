"""Lets the exporter run among all that harms it, and looks what that leaves behind.

python -m tools.soak --minutes=30

The real process polls two simulated accounts of which one plays a random fault for a share of all
requests; it is reloaded every ten seconds, now and then with a mistake, and scraped by many clients
at once, some of which read slowly; others try wrong passwords; and for a minute now and then nobody
reads its log. Faults that answer well-formed lies (other counts, other ids) are left out: nobody
could tell. At the end faults stop, time stands still, and the counters must be those of the ledger.
Memory, open files, defects, error lines and how soon health answers are looked at all the while.
Exit status 1: not so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count, pairwise
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import bcrypt
from yarl import URL

from exporter.simulator import (
    CATALOGUE,
    SCENARIOS,
    Clock,
    Faults,
    Rule,
    Simulation,
    World,
    serve,
)
from exporter.simulator.ledger import RunCompleted, TaskCompleted
from exporter.simulator.signatures import make_account

LIES = re.compile(
    "ids-|id-huge|dates-|label-injection|.*-numbers$|huge-integers|texts-as-numbers|unknown-states"
    "|numbers-as|null-|empty-objects|missing-members|.*-not-found$|not-configured|job-being"
    "|next-link-(dropped|empty)|token-expired|auth|too-many-requests-h|foreign-pools|growing-list|duplicate-keys"
)
"""Faults that say something false in a well-formed answer, or stop an account for minutes."""

SCENARIO = replace(
    SCENARIOS["flaky-tasks"],
    # What is to be counted must be there for long enough to be seen between two faults.
    job_retention=(600.0, 900.0),
    node_incident_interval=1e9,
    job_disable_share=0.0,
    job_terminate_share=0.0,
    ended_unstarted_share=0.0,
)

SLOW = 5
"""Scrapers of all that read a few bytes a second."""

GUESSERS = 8
"""Clients that try wrong passwords, one after the other."""

HEALTH_WITHIN = 1.0
"""Seconds in which a health check is to be answered."""

UNREAD = (180.0, 60.0)
"""Seconds for which the log is read, and then not."""

USER, PASSWORD = "prometheus", "the right password"
RIGHT = {"Authorization": aiohttp.encode_basic_auth(USER, PASSWORD)}

SETTLE = 60.0
"""Seconds at the end for everything to be polled once more and shown."""


@dataclass
class Process:
    """The exporter's process and what it said."""

    process: asyncio.subprocess.Process
    lines: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    url: str = ""
    is_read: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        """Take its log, while `is_read` is set."""
        assert self.process.stderr is not None
        self.is_read.set()
        async for raw in self.process.stderr:
            await self.is_read.wait()
            line = raw.decode("utf-8", "replace")
            if not line.startswith("{"):
                self.errors.append(line)
                continue
            said = json.loads(line)
            self.lines[said["level"]] += 1
            if said["level"] == "ERROR" and "not reloaded" not in said["msg"]:
                self.errors.append(line)
            if said["msg"] == "listening":
                self.url = said["address"]

    @property
    def rss(self) -> int:
        """Resident memory in bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def files(self) -> int:
        """Open files and sockets."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def config(simulations: list[Simulation], number: int) -> str:
    """A configuration; each is another one, and some are wrong."""
    accounts = [
        {
            "name": each.account_name,
            "endpoint": each.endpoint,
            "auth": {"method": "shared_key", "key_file": f"{each.account_name}.key"},
            "requests_per_second": 200,
            "request_timeout": "2s",
            "discovery_interval": "5s",
            "max_jobs": 1000 + number % 3,
            "jobs": [
                {
                    "id_regex": ".*",
                    "completed_for": "1h",
                    "group": "all",
                    "labels": {"variant": str(number % 2)},
                }
            ],
        }
        for each in simulations
    ]
    collect = ["task_counts", "preparation_release", "tasks"]
    defaults = {"interval": "2s", "idle_interval": "0s", "collect": collect}
    data: dict[str, Any] = {"state_file": "state.db", "defaults": defaults, "accounts": accounts}
    if number % 5 == 4:
        data["no_such_key"] = True
    return json.dumps(data)


@asynccontextmanager
async def accounts(faults: Faults, clock: Clock) -> AsyncIterator[list[Simulation]]:
    """One account with faults and one without."""
    async with AsyncExitStack() as stack:
        found = []
        for seed, interceptors in ((1, (faults,)), (2, ())):
            world = World(SCENARIO, seed=seed, jobs=15, nodes=6, start=clock.now(), ledger=True)
            account = replace(make_account(seed), name=f"account{seed}")
            served = serve(world, clock, account=account, interceptors=interceptors)
            found.append(await stack.enter_async_context(served))
        yield found


async def scrape(process: Process, number: int, latencies: list[float]) -> None:
    """One of many clients: text or OpenMetrics, plain or compressed, fast or slow."""
    accept = ["text/plain", "application/openmetrics-text;version=1.0.0"][number % 2]
    headers = {"Accept": accept, "Accept-Encoding": ["gzip", "identity"][number // 2 % 2]}
    random = Random(number)
    async with aiohttp.ClientSession(headers={**headers, **RIGHT}) as session:
        while True:
            await asyncio.sleep(random.uniform(0.5, 5.0))
            started = time.monotonic()
            async with session.get(process.url) as answer:
                assert answer.status in (200, 503), answer.status
                await answer.read()
            if answer.status == 200:
                latencies.append(time.monotonic() - started)


async def trickle(process: Process) -> None:
    """A client that reads some 600 bytes a second, until it is cut off."""
    url = URL(process.url)
    request = (
        f"GET {url.path} HTTP/1.1\r\nHost: x\r\nAuthorization: {RIGHT['Authorization']}\r\n\r\n"
    )
    while True:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, (url.host, url.port))
            await loop.sock_sendall(client, request.encode())
            with suppress(OSError):
                while await loop.sock_recv(client, 64):  # noqa: ASYNC110 - its pace
                    await asyncio.sleep(0.1)


async def guess(process: Process, number: int, answered: Counter[int]) -> None:
    """Try one wrong password after the other."""
    async with aiohttp.ClientSession() as session:
        for attempt in count():
            wrong = aiohttp.encode_basic_auth(USER, f"{number}-{attempt}")
            async with session.get(process.url, headers={"Authorization": wrong}) as answer:
                answered[answer.status] += 1
                await answer.read()
            await asyncio.sleep(0.02)


async def probe(process: Process, took: list[float]) -> None:
    """A health check each second, as a cluster makes it."""
    url = process.url.replace("/metrics", "/-/healthy")
    async with aiohttp.ClientSession() as session:
        while True:
            started = time.monotonic()
            async with session.get(url) as answer:
                assert answer.status == 200, answer.status
            took.append(time.monotonic() - started)
            await asyncio.sleep(1.0)


async def stop_reading(process: Process) -> None:
    """Leave the log unread for a while, again and again."""
    read, unread = UNREAD
    while True:
        await asyncio.sleep(read)
        process.is_read.clear()
        try:
            await asyncio.sleep(unread)
        finally:
            process.is_read.set()


async def reload(process: Process, file: Path, simulations: list[Simulation]) -> None:
    """Every ten seconds another configuration."""
    number = 0
    while True:
        await asyncio.sleep(10)
        number += 1
        await asyncio.to_thread(file.write_text, config(simulations, number))
        process.process.send_signal(signal.SIGHUP)


async def series(process: Process) -> dict[str, float]:
    """What is exposed now, by line."""
    session = aiohttp.ClientSession(headers=RIGHT)
    async with session, session.get(process.url) as answer:
        text = await answer.text()
    lines = (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, _, value in lines}


def expected(simulation: Simulation, since: int) -> Counter[str]:
    """The counters of an account, by the simulator's own ledger."""
    account = f'account="{simulation.account_name}"'
    ledger = simulation.world.ledger
    found: Counter[str] = Counter()
    for task in ledger.of(TaskCompleted, since_tick=since):
        found[f'azure_batch_account_tasks_completed_total{{{account},result="{task.result}"}}'] += 1
        if task.category is not None:
            name = "azure_batch_account_tasks_failed_total"
            found[f'{name}{{{account},category="{task.category.lower()}"}}'] += 1
    for run in ledger.of(RunCompleted, since_tick=since):
        if run.category is not None:
            name = f"azure_batch_account_{run.kind}_tasks_failed_total"
            found[f'{name}{{{account},category="{run.category.lower()}"}}'] += 1
    return found


async def soak(minutes: float, scrapers: int, share: float, folder: Path) -> bool:
    """Run it; whether all is as it should be."""
    clock = Clock(datetime.now(UTC), speed=0.0)
    faults = Faults(seed=1)
    names = [name for name in CATALOGUE if not LIES.match(name)]
    async with accounts(faults, clock) as simulations:
        for each in simulations:
            key = folder / f"{each.account_name}.key"
            key.write_text(each.account_key)
            key.chmod(0o600)
        web = folder / "web.yaml"
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
        web.write_text(json.dumps({"basic_auth_users": {USER: hashed}}))
        file = folder / "config.yaml"
        file.write_text(config(simulations, 0))
        process = Process(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "exporter", "run", f"--config.file={file}"),
                *("--web.listen-address=127.0.0.1:0", "--log.format=json", "--log.level=debug"),
                f"--web.config.file={web}",
                stderr=asyncio.subprocess.PIPE,
            )
        )
        reading = asyncio.create_task(process.read())
        await asyncio.sleep(12)  # all is polled once before anything happens
        since = [each.world.tick for each in simulations]
        latencies: list[float] = []
        health: list[float] = []
        guesses: Counter[int] = Counter()
        background = [
            asyncio.create_task(each)
            for each in (
                *(scrape(process, number, latencies) for number in range(scrapers - SLOW)),
                *(trickle(process) for _ in range(SLOW)),
                *(guess(process, number, guesses) for number in range(GUESSERS)),
                probe(process, health),
                stop_reading(process),
            )
        ]
        background.append(asyncio.create_task(reload(process, file, simulations)))
        memory, files = await live(minutes, process, faults, names, share, clock)
        faults.clear()
        for task in background[-1:]:
            task.cancel()
        await asyncio.sleep(SETTLE)
        shown = await series(process)
        failed = [task for task in background if task.done() and not task.cancelled()]
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await asyncio.sleep(8)  # connections that were kept are closed
        files.append(process.files)
        process.process.send_signal(signal.SIGTERM)
        status = await asyncio.wait_for(process.process.wait(), 20)
        await reading
    counted = [expected(each, tick) for each, tick in zip(simulations, since, strict=True)]
    wrong = {
        name: (shown.get(name), value)
        for each in counted
        for name, value in each.items()
        if shown.get(name) != value
    }
    half = len(memory) // 2
    report(shown, latencies, memory, files, process, faults, counted)
    print(f"health checks: {len(health)}, longest {max(health) * 1000:.0f} ms")
    print(f"wrong passwords: answered with {dict(guesses)}")
    dropped = shown["azure_batch_exporter_log_lines_dropped_total"]
    print(f"log lines that were dropped while nobody read: {dropped:.0f}")
    third, fourth = memory[half : half + half // 2], memory[half + half // 2 :]
    growth = statistics.mean(fourth) - statistics.mean(third)
    checks: dict[str, Any] = {
        "counters other than the ledger": wrong,
        "error lines": process.errors[:5],
        "defects": {k: v for k, v in shown.items() if "internal_errors_total" in k and v},
        "clients that failed": failed,
        "health checks that took too long": sum(each > HEALTH_WITHIN for each in health),
        "wrong passwords that were taken": guesses[200],
        "exit status": status,
        "memory grew in the second half by MB": round(growth / 1e6) if growth > 15e6 else 0,
        "files were left open": max(0, files[-1] - files[0] - 5),
    }
    for name, problem in checks.items():
        print(f"{name}: {problem or 'none'}")
    return not any(checks.values())


async def live(
    minutes: float, process: Process, faults: Faults, names: list[str], share: float, clock: Clock
) -> tuple[list[int], list[int]]:
    """Play faults and let time pass; memory and open files every ten seconds."""
    random = Random(7)
    memory: list[int] = []
    files = [process.files]
    end = time.monotonic() + minutes * 60
    last = time.monotonic()
    while time.monotonic() < end:
        chosen = random.sample(names, 3)
        # The first rule that fits a request plays: each fault hits a share of them.
        faults.set(*(Rule(name, share=share) for name in chosen))
        for _ in range(10):
            await asyncio.sleep(1)
            now = time.monotonic()
            clock.advance(now - last)
            last = now
        memory.append(process.rss)
        files.append(process.files)
    return memory, files


def report(
    shown: dict[str, float],
    latencies: list[float],
    memory: list[int],
    files: list[int],
    process: Process,
    faults: Faults,
    counted: list[Counter[str]],
) -> None:
    """Print what was measured."""
    requests = sum(v for k, v in shown.items() if "exporter_requests_total" in k)
    print(f"faults played: {faults.played.total()} of {len(faults.played)} kinds")
    print(f"requests to the service: {requests:.0f}")
    print(f"scrapes: {len(latencies)}, median {statistics.median(latencies) * 1000:.0f} ms,"
          f" longest {max(latencies) * 1000:.0f} ms")  # fmt: skip
    bounds = [len(memory) * tenth // 10 for tenth in range(11)]
    tenths = [memory[first:last] for first, last in pairwise(bounds) if last > first]
    print("memory by tenths, MB:", *(f"{statistics.mean(each) / 1e6:.0f}" for each in tenths))
    print(f"open files: {files[0]} at first, {max(files)} at most, {files[-1]} at the end")
    print(f"log lines: {dict(process.lines)}")
    print(f"events counted: {sum(each.total() for each in counted)}")


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--scrapers", type=int, default=50)
    parser.add_argument(
        "--share", type=float, default=0.1, help="of requests, for each of 3 faults"
    )
    options = parser.parse_args()
    if options.minutes < 1:
        parser.error("--minutes must be 1 or more, for memory to be judged")
    with tempfile.TemporaryDirectory() as folder:
        good = asyncio.run(soak(options.minutes, options.scrapers, options.share, Path(folder)))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
