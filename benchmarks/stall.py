"""The longest stall of the event loop while 100,000 series change and are scraped all the time.

Each job gets new numbers once in ten seconds, one after the other, and a process of its own scrapes
four times a second, in turns plain and with gzip. The baseline does the same with gauges, and calls
generate_latest in its handler, on the loop.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import Gauge, generate_latest

from benchmarks.content import SERIES_OF_A_JOB, gauges, polled, show
from benchmarks.harness import Process, answer, compared, head
from exporter.config import Config
from exporter.service.service import open_service
from exporter.web.app import build_app

SECONDS = 10.0
EACH = 0.25

CONFIG = {
    "accounts": [
        {
            "name": "account",
            "endpoint": "http://127.0.0.1:1",
            "auth": {"method": "managed_identity"},
            "jobs": [{"id_regex": ".*"}],
            "max_series": 10_000_000,
        }
    ]
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", choices=("gauges", "exporter"), help=argparse.SUPPRESS)
    parser.add_argument("--scrape", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help="a tenth of the series, one round")
    options = parser.parse_args()
    if options.small:
        options.series, options.rounds = 10_000, 1
    jobs = -(-options.series // SERIES_OF_A_JOB)
    if options.serve:
        asyncio.run(serve(options.serve, jobs))
        return
    if options.scrape:
        asyncio.run(answer(scrape))
        return
    found: dict[str, list[float]] = {"gauges": [], "exporter": []}
    for _ in range(options.rounds):
        for way, stalls in found.items():
            arguments = (f"--serve={way}", f"--series={options.series}")
            with (
                Process("benchmarks.stall", *arguments) as server,
                Process("benchmarks.stall", "--scrape") as client,
            ):
                client.tell(server.ready["url"])
                stalls.append(server.ask("go")["stall"] * 1000)
    print(
        f"{jobs * SERIES_OF_A_JOB} series, all new in {SECONDS:g} s, scraped each {EACH:g} s: ms\n"
    )
    head("", "generate_latest on the loop", "this exporter", "times shorter")
    compared("longest stall", found["gauges"], found["exporter"])


async def scrape(url: str) -> dict[str, Any]:
    """Scrape until the service is gone."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        for encoding in ("gzip", "identity") * 1000:
            try:
                async with session.get(url, headers={"Accept-Encoding": encoding}) as response:
                    await response.read()
            except aiohttp.ClientError:
                break
            await asyncio.sleep(EACH)
    return {}


async def serve(way: str, jobs: int) -> None:
    """Serve the metrics of so many jobs; change them when told to."""
    async with AsyncExitStack() as stack:
        make = with_gauges if way == "gauges" else with_exporter
        app, change = await make(stack, jobs)
        runner = web.AppRunner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

        async def go(_: str) -> dict[str, Any]:
            await asyncio.sleep(1.0)  # the first scrapes
            return {"stall": await longest_stall(change, jobs)}

        await answer(go, {"url": f"http://127.0.0.1:{port}/metrics"})


async def longest_stall(change: Callable[[int, int], None], jobs: int) -> float:
    """Change all, one after the other; gives the longest that a timer came too late, in seconds."""
    longest = 0.0
    ended = False

    async def tick() -> None:
        nonlocal longest
        while not ended:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - due)

    ticking = asyncio.create_task(tick())
    started = time.perf_counter()
    for number in range(jobs):
        await asyncio.sleep(max(0.0, started + SECONDS * number / jobs - time.perf_counter()))
        change(number, 1)
    ended = True
    await ticking
    return longest


async def with_exporter(
    stack: AsyncExitStack, jobs: int
) -> tuple[web.Application, Callable[[int, int], None]]:
    """This program's own application."""
    service = await stack.enter_async_context(open_service(Config.model_validate(CONFIG)))
    for number in range(jobs):
        show(service.exposition, polled(number, 0))
    app = build_app(service, "/metrics")
    return app, lambda number, step: show(service.exposition, polled(number, step))


async def with_gauges(
    _: AsyncExitStack, jobs: int
) -> tuple[web.Application, Callable[[int, int], None]]:
    """What one would write instead."""
    registry = gauges(jobs)
    children: list[list[Gauge]] = [[] for _ in range(jobs)]
    for gauge in registry._names_to_collectors.values():
        assert isinstance(gauge, Gauge)
        for labels, child in gauge._metrics.items():
            children[int(labels[1].rpartition("-")[2])].append(child)

    async def metrics(request: web.Request) -> web.Response:
        body = generate_latest(registry)
        if "gzip" in request.headers["Accept-Encoding"]:
            return web.Response(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})
        return web.Response(body=body)

    def change(number: int, step: int) -> None:
        for child in children[number]:
            child.set(step)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app, change


if __name__ == "__main__":
    main()
