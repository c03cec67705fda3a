"""`simulate`: a simulated Batch account alone, for other clients."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from exporter import simulator
from exporter.cli import flags
from exporter.cli.parsing import CommandParser, OneOf, describe

SCENARIOS = dict(simulator.SUMMARIES)
"""The scenarios there are: name and one line about each."""

_ANYWHERE = "0.0.0.0"  # noqa: S104 - only where the user gave an address without a host


@dataclass(frozen=True)
class Settings:
    """What is simulated. `nodes`: of each fixed pool. `speed`: simulated seconds to a real one."""

    scenario: str = "steady"
    seed: int = 1
    jobs: int = 12
    nodes: int = 8
    speed: float = 1.0


def define(parser: CommandParser) -> None:
    """The command and its flags."""
    describe(
        parser,
        _simulate,
        """
        Serves the REST API of a Batch account that lives by itself: jobs come and go, tasks queue,
        run, fail and are retried. Prints endpoint, account name and key. It is read-only, and
        keeps everything in memory.
        """,
        examples={
            "azure-batch-exporter simulate --listen-address=127.0.0.1:10226": "on a fixed port",
            "azure-batch-exporter simulate --jobs=500 --nodes=40 --speed=10": "larger, and faster",
        },
        scenarios=SCENARIOS,
    )
    defaults = Settings()
    parser.add_argument(
        "--listen-address",
        type=flags.parse_address,
        default=("127.0.0.1", 0),
        metavar="ADDRESS",
        help="host:port to serve on (default: a free port of 127.0.0.1)",
    )
    add_scenario(parser)
    parser.add_argument(
        "--seed",
        type=int,
        default=defaults.seed,
        metavar="N",
        help="the same seed gives the same account (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs",
        type=flags.positive,
        default=defaults.jobs,
        metavar="N",
        help="number of jobs at any time (default: %(default)s)",
    )
    parser.add_argument(
        "--nodes",
        type=flags.positive,
        default=defaults.nodes,
        metavar="N",
        help="number of nodes in each pool (default: %(default)s)",
    )
    parser.add_argument(
        "--speed",
        type=_speed,
        default=defaults.speed,
        metavar="X",
        help="simulated seconds to a real one (default: %(default)s)",
    )


def add_scenario(parser: argparse.ArgumentParser) -> None:
    """--scenario; the section of the help that explains it lists SCENARIOS."""
    parser.add_argument(
        "--scenario",
        type=OneOf(SCENARIOS),
        default=Settings().scenario,
        metavar="S",
        help="what is simulated, see below (default: %(default)s)",
    )


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 <= speed <= 1e6:
        raise argparse.ArgumentTypeError(f"{text}: write a number, 0 (time stands still) or more")
    return speed


def _simulate(options: argparse.Namespace) -> int:
    return asyncio.run(_serve(options))


async def _serve(options: argparse.Namespace) -> int:
    from exporter.service import process

    stop = process.stop_on_signals()
    settings = Settings(options.scenario, options.seed, options.jobs, options.nodes, options.speed)
    host, port = options.listen_address
    async with simulated_account(settings, host or _ANYWHERE, port) as simulation:
        print(f"endpoint: {simulation.endpoint}")
        print(f"account: {simulation.account_name}")
        print(f"key: {simulation.account_key}", flush=True)
        await stop.wait()
    return 0


@asynccontextmanager
async def simulated_account(
    settings: Settings, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[simulator.Simulation]:
    """Serve a simulated account that starts now. OSError where the port cannot be had."""
    start = datetime.now(UTC)
    faults = simulator.Faults(seed=settings.seed)
    simulator.begin_faults(faults, settings.scenario)
    world = simulator.World(
        simulator.SCENARIOS[simulator.world_of(settings.scenario)],
        seed=settings.seed,
        jobs=settings.jobs,
        nodes=settings.nodes,
        start=start,
    )
    clock = simulator.Clock(start, speed=settings.speed)
    async with simulator.serve(
        world,
        clock,
        interceptors=(faults,),
        routes=(
            *simulator.scenario_routes(world, faults, settings.scenario),
            *simulator.fault_routes(faults),
        ),
        host=host,
        port=port,
    ) as simulation:
        yield simulation
