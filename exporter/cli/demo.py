"""`demo`: the exporter on a simulated account, with nothing to configure."""

from __future__ import annotations

import argparse
import asyncio
import re

from exporter.cli import flags
from exporter.cli import simulated_account as demo
from exporter.cli.parsing import Commands, add_command
from exporter.service import logs
from exporter.service import process as daemon
from exporter.service.service import open_service

_ALL_INTERFACES = re.compile(r"//(0\.0\.0\.0|\[::\]):")


def add(commands: Commands) -> None:
    """The command and its flags."""
    parser = add_command(
        commands,
        "demo",
        _demo,
        "serve the metrics of a simulated account: nothing to configure",
        """
        Starts a simulated Batch account on a free port of this machine and the exporter on top of
        it, and says which URLs to open. While it runs another scenario can be begun, and any of
        some 120 faults played. docs/tour.md shows what to look at.
        """,
        examples={
            "azure-batch-exporter demo": "a healthy account, on port 10225",
            "azure-batch-exporter demo --scenario=prep-storm": "one that has a bad day",
        },
        scenarios=flags.SCENARIOS,
    )
    flags.add_scenario(parser)
    parser.add_argument(
        "--simulator.listen-address",
        dest="simulator_address",
        type=flags.parse_address,
        default=("127.0.0.1", 0),
        metavar="ADDRESS",
        help="host:port of the simulated account (default: a free port of 127.0.0.1)",
    )
    flags.add_log_flags(parser)
    flags.add_web_flags(parser)


def _demo(options: argparse.Namespace) -> int:
    logs.configure(options.log_level, options.log_format)
    return asyncio.run(_serve(options))


async def _serve(options: argparse.Namespace) -> int:
    stop = daemon.stop_on_signals()

    def announce(urls: tuple[str, ...]) -> None:
        shown = dict.fromkeys(_ALL_INTERFACES.sub("//localhost:", url) for url in urls)
        print(demo.welcome(simulation, options.scenario, tuple(shown), options.telemetry_path))
        print("Press Ctrl-C to stop.", flush=True)

    settings = demo.Settings(scenario=options.scenario)
    host, port = options.simulator_address
    async with demo.simulated_account(settings, host or "127.0.0.1", port) as simulation:
        loaded = demo.demo_config(simulation)
        async with open_service(loaded, revision=flags.revision()) as service:
            await daemon.run(service, flags.listener(options), lambda: loaded, stop, announce)
    return 0
