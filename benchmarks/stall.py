"""How long one scrape, or one answer, holds the event loop.

A scrape of a million series, against generate_latest on the loop. The exporter's own web
application serves the series; a timer on the same loop fires each millisecond and notes how late it
is. A process of its own scrapes with gzip and plain, each time after a share of the jobs has
changed. The changes are made before the scrape, one job at a time, and are not measured. The
baseline calls generate_latest in its handler.

Answers of a simulated account (`--answers`): a page of 1,000 nodes, and faults that would take time
or memory, read as a poll reads them. The baseline decodes each with json and counts its records.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gzip
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from prometheus_client import generate_latest
from yarl import URL

from benchmarks.content import SERIES_OF_A_JOB, gauges, polled, show
from benchmarks.harness import Process, answer, head, median, resident, row, verdict
from exporter.batch.auth import Auth, SharedKeyAuth
from exporter.batch.budget import Budget
from exporter.batch.client import open_client
from exporter.batch.errors import PollError
from exporter.batch.models import Job
from exporter.collectors import preparation_release
from exporter.config import Account, Config
from exporter.config.models import API_VERSION
from exporter.polling.selection import watch
from exporter.service.service import open_service
from exporter.service.telemetry import AccountTelemetry, Telemetry
from exporter.web.app import build_app

FLOOR = 20.0
"""ms"""

SHARES = {"none": 0.0, "1 %": 0.01, "all": 1.0}
ENCODINGS = ("gzip", "identity")

ANSWER_FLOOR = 50.0
"""ms"""

ANSWERS = (
    *("none", "foreign-pools", "pool-flood", "record-flood", "value-flood", "tiny-chunks"),
    *("gzip-bomb", "huge-body", "nested-deep", "next-link-huge", "header-flood"),
)
"""Faults of a list of nodes."""

Found = dict[tuple[str, str], list[float]]
"""By encoding and share."""

CONFIG = {
    "accounts": [
        {
            "name": "account",
            "endpoint": "http://127.0.0.1:1",
            "auth": {"method": "managed_identity"},
            "max_series": 10_000_000,
        }
    ]
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=1_000_000, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--serve", choices=("gauges", "exporter"), help=argparse.SUPPRESS)
    parser.add_argument("--read", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--account", help=argparse.SUPPRESS)
    parser.add_argument("--answers", action="store_true", help="of answers alone")
    parser.add_argument("--small", action="store_true", help="a tenth of the series, two rounds")
    options = parser.parse_args()
    if options.small:
        options.series, options.rounds = 100_000, 2
    jobs = -(-options.series // SERIES_OF_A_JOB)
    if options.read:
        asyncio.run(read_answers(options.read, json.loads(options.account)))
        return
    if options.serve:
        asyncio.run(serve(options.serve, jobs))
        return
    measure_answers(options.rounds)
    if options.answers:
        return
    # Changes make no difference to generate_latest, and one scrape takes it ten seconds.
    theirs, _ = measure("gauges", options.series, {"none": 0.0}, 1)
    ours, taken = measure("exporter", options.series, SHARES, options.rounds)
    print(f"{jobs * SERIES_OF_A_JOB} series: ms for which a scrape holds the event loop\n")
    head(
        *("/metrics", "jobs changed", "generate_latest", "this exporter", "in the worst round"),
        *("floor", "holds", "ms to the last byte"),
    )
    for encoding in ENCODINGS:
        for name in SHARES:
            found = ours[encoding, name]
            row(
                encoding,
                name,
                f"{median(theirs[encoding, 'none']):.0f}",
                f"{median(found):.1f}",
                f"{max(found):.1f}",
                f"≤ {FLOOR:g}",
                verdict(median(found) <= FLOOR),
                f"{median(taken[encoding, name]):.0f}",
            )
    print(flush=True)


def measure_answers(rounds: int) -> None:
    """Measure and print what each answer costs both readers."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with Process("benchmarks.simulator", "nodes", "--size=1000") as simulator:
        account = f"--account={json.dumps(simulator.ready)}"
        for way in READERS:
            for fault in ANSWERS:
                # A process of its own: what one answer left behind is not counted to another.
                with Process("benchmarks.stall", f"--read={way}", account) as reader:
                    reader.ask("warm")
                    simulator.ask(f"fault {fault}" if fault != "none" else "fault")
                    for _ in range(rounds):
                        found.setdefault((way, fault), []).append(reader.ask("read"))
                    simulator.ask("fault")
    print("one answer: ms for which it holds the event loop, and MiB that it takes\n")
    head(
        *("answer", "json on the loop, ms", "MiB", "this exporter, ms", "in the worst round"),
        *("MiB", "floor, ms", "holds"),
    )
    for fault in ANSWERS:
        theirs, ours = found["plain", fault], found["exporter", fault]
        stalls = [each["stall"] * 1000 for each in ours]
        row(
            f"`{fault}`",
            f"{median(each['stall'] * 1000 for each in theirs):.0f}",
            f"{max(each['memory'] for each in theirs):.0f}",
            f"{median(stalls):.0f}",
            f"{max(stalls):.0f}",
            f"{max(each['memory'] for each in ours):.0f}",
            f"≤ {ANSWER_FLOOR:g}",
            verdict(median(stalls) <= ANSWER_FLOOR),
        )
    print(flush=True)


def measure(way: str, series: int, shares: Mapping[str, float], rounds: int) -> tuple[Found, Found]:
    """ms for which each scrape held the loop, and to its last byte."""
    stalls: Found = {}
    taken: Found = {}
    with Process("benchmarks.stall", f"--serve={way}", f"--series={series}") as server:
        url = server.ready["url"]
        for encoding in ENCODINGS:
            scrape(url, encoding)
        for _ in range(rounds):
            for name, share in shares.items():
                for encoding in ENCODINGS:
                    server.ask(str(share))
                    taken.setdefault((encoding, name), []).append(scrape(url, encoding) * 1000)
                    stall = server.ask("stall")["stall"] * 1000
                    stalls.setdefault((encoding, name), []).append(stall)
    return stalls, taken


def scrape(url: str, encoding: str) -> float:
    """Seconds from the request to the last byte."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    buffer = bytearray(1 << 20)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        started = time.perf_counter()
        connection.sendall(
            f"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {encoding}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        while connection.recv_into(buffer):
            pass
    return time.perf_counter() - started


class Ticks:
    """A timer that fires each millisecond. `longest`: seconds by which it was late."""

    longest = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - due)


async def plain(endpoint: str, job_id: str, auth: Auth) -> None:
    """What one would write instead: decode on the loop, and count."""
    url = f"{endpoint}/jobs/{job_id}/jobpreparationandreleasetaskstatus?api-version={API_VERSION}"
    async with (
        aiohttp.ClientSession(headers=await auth.headers(url)) as session,
        session.get(URL(url, encoded=True)) as response,
    ):
        records = (await response.json(content_type=None)).get("value", [])
        Counter(record.get("poolId") for record in records)


async def ours(endpoint: str, job_id: str, auth: Auth) -> None:
    """As a poll does."""
    now = time.time()
    account = Account.model_validate(
        {"name": "a", "endpoint": endpoint, "auth": {"method": "managed_identity"}}
    )
    async with AsyncExitStack() as stack:
        budget = Budget(account.requests_per_second, lambda _: None)
        observer = AccountTelemetry(Telemetry(""), "a")
        client = open_client(stack, account, auth, budget, observer)
        watched = watch(Job(id=job_id), account.jobs[0])
        reading = await preparation_release.read(client, watched, None, now)
        folded = preparation_release.fold(None, reading, now, True)
        for metric in preparation_release.COLLECTOR.metrics:
            list(metric.samples(folded.state))


READERS = {"plain": plain, "exporter": ours}


def forget_highest_memory() -> None:
    """Let the highest memory of this process be that from now on."""
    Path("/proc/self/clear_refs").write_text("5")


async def read_answers(way: str, account: Mapping[str, Any]) -> None:
    """Read the list of nodes of the simulated job; tell the longest stall, and memory."""
    key = base64.b64decode(account["key"])
    auth = SharedKeyAuth(account["account"], lambda: key)
    ticks = Ticks()

    async def turn(_: str) -> dict[str, Any]:
        forget_highest_memory()
        before, _ = resident(os.getpid())
        await asyncio.sleep(0.05)
        ticks.longest = 0.0
        with suppress(PollError, OSError, ValueError, RecursionError, aiohttp.ClientError):
            await READERS[way](account["endpoint"], account["jobs"][0], auth)
        await asyncio.sleep(0.05)
        _, most = resident(os.getpid())
        return {"stall": ticks.longest, "memory": most - before}

    ticking = asyncio.create_task(ticks.run())
    await answer(turn)
    ticking.cancel()


async def serve(way: str, jobs: int) -> None:
    """Serve the metrics of so many jobs; change a share of them; tell the longest stall."""
    async with AsyncExitStack() as stack:
        app, change = await (with_gauges if way == "gauges" else with_exporter)(stack, jobs)
        runner = web.AppRunner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ticks = Ticks()
        step = 0

        async def turn(command: str) -> dict[str, Any]:
            nonlocal step
            if command == "stall":
                return {"stall": ticks.longest}
            step += 1
            share = float(command)
            for number in range(0, jobs, round(1 / share)) if share else ():
                change(number, step)
                await asyncio.sleep(0)
            await asyncio.sleep(0.5)  # what the changes left behind is done
            ticks.longest = 0.0
            return {}

        ticking = asyncio.create_task(ticks.run())
        await answer(turn, {"url": f"http://127.0.0.1:{runner.addresses[0][1]}"})
        ticking.cancel()


async def with_exporter(
    stack: AsyncExitStack, jobs: int
) -> tuple[web.Application, Callable[[int, int], None]]:
    """This program's own application."""
    service = await stack.enter_async_context(open_service(Config.model_validate(CONFIG)))

    def change(number: int, step: int) -> None:
        show(service.exposition, polled(number, step))

    for number in range(jobs):
        change(number, 0)
    return build_app(service, "/metrics"), change


async def with_gauges(
    _: AsyncExitStack, jobs: int
) -> tuple[web.Application, Callable[[int, int], None]]:
    """What one would write instead."""
    registry = gauges(jobs)

    async def metrics(request: web.Request) -> web.Response:
        body = generate_latest(registry)
        if "gzip" in request.headers["Accept-Encoding"]:
            return web.Response(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})
        return web.Response(body=body)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app, lambda _number, _step: None


if __name__ == "__main__":
    main()
