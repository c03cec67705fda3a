"""A simulated account of a size, in a process of its own, for the other benchmarks.

It says where it is; then `minute` moves its time on by one, and `requests` tells what came since
it was asked last.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from benchmarks.harness import answer
from exporter.simulator import (
    SCENARIOS,
    Call,
    Clock,
    Proceed,
    World,
    many_jobs,
    many_records,
    serve,
)

NODES = 1000
"""Of each job in the world of records."""

WORLDS: dict[str, Callable[[int, datetime], World]] = {
    "records": lambda jobs, start: many_records(NODES, jobs=jobs, start=start),
    "counts": lambda jobs, start: many_jobs(jobs, tasks=50, start=start),
    "steady": lambda jobs, start: World(SCENARIOS["steady"], jobs=jobs, start=start),
}


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world", choices=WORLDS)
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--speed", type=float, default=0.0)
    options = parser.parse_args()
    asyncio.run(simulate(options.world, options.jobs, options.speed))


async def simulate(name: str, jobs: int, speed: float) -> None:
    """Serve one account."""
    start = datetime.now(UTC)
    world = WORLDS[name](jobs, start)
    clock = Clock(start, speed=speed)
    arrivals: list[float] = []
    spent = time.process_time()
    prepared = Prepared()
    still = () if speed else (prepared.answer,)

    async def note(_request: web.Request, _call: Call, proceed: Proceed) -> web.StreamResponse:
        arrivals.append(time.monotonic())
        return await proceed()

    async def turn(command: str) -> Mapping[str, Any]:
        nonlocal spent
        if command == "minute":
            clock.advance(60.0)
            world.advance(clock.now())
            await prepared.renew()
            return {}
        assert command == "requests", command
        before, spent = spent, time.process_time()
        found = {"arrivals": list(arrivals), "spent": spent - before}
        arrivals.clear()
        return found

    async with serve(world, clock, interceptors=(note, *still)) as simulation:
        await answer(
            turn,
            {
                "endpoint": simulation.endpoint,
                "account": simulation.account_name,
                "key": simulation.account_key,
            },
        )


class Prepared:
    """Answers that were made before they are asked for, as a service on machines of its own would.

    Else whoever is faster than the simulation would wait for it again and again, and find the
    processor's caches filled by others each time.
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
        """Make all anew, for time has passed."""
        for key, (proceed, _) in self._made.items():
            self._made[key] = (proceed, await _made(proceed))


async def _made(proceed: Proceed) -> web.Response:
    response = await proceed()
    assert isinstance(response, web.Response)
    assert response.status == 200
    return response


if __name__ == "__main__":
    main()
