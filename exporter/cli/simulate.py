"""`simulate`: a simulated Batch account alone, for other clients."""

from __future__ import annotations

import argparse
import asyncio

from exporter.cli import flags
from exporter.cli import simulated_account as demo
from exporter.cli.parsing import Commands, add_command
from exporter.service import process as daemon

_ANYWHERE = "0.0.0.0"  # noqa: S104 - only where the user gave an address without a host


def add(commands: Commands) -> None:
    """The command and its flags."""
    parser = add_command(
        commands,
        "simulate",
        _simulate,
        "serve a simulated Batch account alone",
        """
        Serves the REST API of a Batch account that lives by itself: jobs come and go, tasks queue,
        run, fail and are retried. Prints endpoint, account name and key. It is read-only, and
        keeps everything in memory.
        """,
        examples={
            "azure-batch-exporter simulate --listen-address=127.0.0.1:10226": "on a fixed port",
            "azure-batch-exporter simulate --jobs=500 --nodes=40 --speed=10": "larger, and faster",
        },
        scenarios=flags.SCENARIOS,
    )
    defaults = demo.Settings()
    parser.add_argument(
        "--listen-address",
        type=flags.parse_address,
        default=("127.0.0.1", 0),
        metavar="ADDRESS",
        help="host:port to serve on (default: a free port of 127.0.0.1)",
    )
    flags.add_scenario(parser)
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
    stop = daemon.stop_on_signals()
    settings = demo.Settings(
        options.scenario, options.seed, options.jobs, options.nodes, options.speed
    )
    host, port = options.listen_address
    async with demo.simulated_account(settings, host or _ANYWHERE, port) as simulation:
        print(f"endpoint: {simulation.endpoint}")
        print(f"account: {simulation.account_name}")
        print(f"key: {simulation.account_key}", flush=True)
        await stop.wait()
    return 0
