"""How long one scrape of a million series holds the event loop, against generate_latest on it.

The exporter's own web application serves the series; a timer on the same loop fires each
millisecond and notes how late it is. A process of its own scrapes with gzip and plain, each time
after a share of the jobs has changed. The changes are made before the scrape, one job at a time,
and are not measured. The baseline calls generate_latest in its handler.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from prometheus_client import generate_latest

from benchmarks.content import SERIES_OF_A_JOB, gauges, polled, show
from benchmarks.harness import Process, answer, head, median, row, verdict
from exporter.config import Config
from exporter.service.service import open_service
from exporter.web.app import build_app

FLOOR = 20.0
"""ms"""

SHARES = {"none": 0.0, "1 %": 0.01, "all": 1.0}
ENCODINGS = ("gzip", "identity")

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
    parser.add_argument("--small", action="store_true", help="a tenth of the series, two rounds")
    options = parser.parse_args()
    if options.small:
        options.series, options.rounds = 100_000, 2
    jobs = -(-options.series // SERIES_OF_A_JOB)
    if options.serve:
        asyncio.run(serve(options.serve, jobs))
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


async def serve(way: str, jobs: int) -> None:
    """Serve the metrics of so many jobs; change a share of them; tell the longest stall."""
    async with AsyncExitStack() as stack:
        app, change = await (with_gauges if way == "gauges" else with_exporter)(stack, jobs)
        runner = web.AppRunner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        longest = 0.0
        step = 0

        async def tick() -> None:
            nonlocal longest
            while True:
                due = time.perf_counter() + 0.001
                await asyncio.sleep(0.001)
                longest = max(longest, time.perf_counter() - due)

        async def turn(command: str) -> dict[str, Any]:
            nonlocal longest, step
            if command == "stall":
                return {"stall": longest}
            step += 1
            share = float(command)
            for number in range(0, jobs, round(1 / share)) if share else ():
                change(number, step)
                await asyncio.sleep(0)
            await asyncio.sleep(0.5)  # what the changes left behind is done
            longest = 0.0
            return {}

        ticking = asyncio.create_task(tick())
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
