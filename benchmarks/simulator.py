"""A simulated account of a given size, in a process of its own, for the other benchmarks.

It prints where it is. Then `minute` moves its time on by one minute, `requests` tells what came
since it was asked last, and `fault NAME` plays a fault, `fault` none.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from aiohttp import web

from benchmarks.harness import answer
from exporter.simulator import (
    SCENARIOS,
    Call,
    Clock,
    Proceed,
    World,
    build_app,
    make_account,
    many_jobs,
    many_records,
    many_tasks,
)
from exporter.simulator.faults import Faults, Rule
from tests.certificates import Authority

NODES = 1000
"""Of each job in the world of records."""

WORLDS: dict[str, Callable[[int, datetime], World]] = {
    "records": lambda jobs, start: many_records(NODES, jobs=jobs, start=start),
    "nodes": lambda records, start: many_records(records, start=start),
    "tasks": lambda records, start: many_tasks(records, changed_per_minute=0.01, start=start),
    "counts": lambda jobs, start: many_jobs(jobs, tasks=50, start=start),
    "steady": lambda jobs, start: World(SCENARIOS["steady"], jobs=jobs, start=start),
}


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world", choices=WORLDS)
    parser.add_argument("--size", type=int, default=10, help="jobs, or records of the one job")
    parser.add_argument("--speed", type=float, default=0.0)
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    asyncio.run(simulate(options.world, options.size, options.speed, options.tls))


class Requests:
    """Notes the requests that arrive: when, of which operation, for what, and bytes sent."""

    def __init__(self) -> None:
        self._spent = time.process_time()
        self._clear()

    def _clear(self) -> None:
        self._arrivals: list[float] = []
        self._bytes = 0
        self._polls: dict[str, list[float]] = defaultdict(list)

    async def note(self, request: web.Request, _call: Call, proceed: Proceed) -> web.StreamResponse:
        """An interceptor."""
        now = time.monotonic()
        self._arrivals.append(now)
        if request.path.endswith("/taskcounts"):
            self._polls[request.path].append(now)
        response = await proceed()
        if isinstance(response, web.Response) and isinstance(response.body, bytes):
            self._bytes += len(response.body)
        return response

    def told(self) -> Mapping[str, Any]:
        """All since it was told last. `gaps`: seconds between polls of one job's task counts."""
        before, self._spent = self._spent, time.process_time()
        times = list(self._polls.values())
        found = {
            "arrivals": self._arrivals,
            "bytes": self._bytes,
            "polls": sum(map(len, times)),
            "gaps": [b - a for of_job in times for a, b in pairwise(of_job)],
            "spent": self._spent - before,
        }
        self._clear()
        return found


async def simulate(name: str, size: int, speed: float, tls: bool) -> None:
    """Serve one account."""
    start = datetime.now(UTC)
    world = WORLDS[name](size, start)
    clock = Clock(start, speed=speed)
    requests, faults = Requests(), Faults()
    prepared = Prepared()
    still = () if speed else (prepared.answer,)

    async def turn(command: str) -> Mapping[str, Any]:
        if command == "minute":
            clock.advance(60.0)
            world.advance(clock.now())
            await prepared.renew()
            return {}
        if command.startswith("fault"):
            faults.set(*map(Rule, command.split()[1:]))
            return {}
        assert command == "requests", command
        return requests.told()

    account = make_account(world.seed)
    app = build_app(world, clock, account, interceptors=(requests.note, faults, *still))
    async with AsyncExitStack() as stack:
        context, trusted = None, ""
        if tls:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            authority = Authority(folder)
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*authority.server())
            trusted = str(authority.file)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        scheme = "https" if tls else "http"
        ready = {
            "endpoint": f"{scheme}://127.0.0.1:{runner.addresses[0][1]}",
            "account": account.name,
            "key": account.key,
            "jobs": list(world.jobs),
            "trust": trusted,
        }
        await answer(turn, ready)


class Prepared:
    """Answers that were made before they are asked for, as if the service had its own machine.

    Otherwise whoever is faster than the simulation would wait for it again and again, and the
    simulation would replace what the processor's caches hold.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[str, str | None], tuple[Proceed, web.Response]] = {}

    async def answer(
        self, request: web.Request, _call: Call, proceed: Proceed
    ) -> web.StreamResponse:
        """An interceptor: what was asked once is the same until it is renewed."""
        key = (request.path_qs, request.headers.get("Accept-Encoding"))
        if key not in self._made:
            self._made[key] = (proceed, await _made(proceed))
        made = self._made[key][1]
        response = web.Response(body=made.body, headers=made.headers)
        response.enable_chunked_encoding()
        return response

    async def renew(self) -> None:
        """Make all again, because time has passed."""
        for key, (proceed, _) in self._made.items():
            self._made[key] = (proceed, await _made(proceed))


async def _made(proceed: Proceed) -> web.Response:
    response = await proceed()
    assert isinstance(response, web.Response)
    assert response.status == 200
    return response


if __name__ == "__main__":
    main()
