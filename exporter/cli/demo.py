"""`demo`: the exporter on a simulated account, with nothing to configure."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import simulator
from exporter.cli import flags, simulate
from exporter.cli.parsing import CommandParser, describe
from exporter.service import logs

if TYPE_CHECKING:
    from exporter.config import Config

KEY_VARIABLE = "AZURE_BATCH_EXPORTER_DEMO_KEY"
"""Where the demo's configuration finds the simulated account's key, as any other would."""

_ALL_INTERFACES = re.compile(r"//(0\.0\.0\.0|\[::\]):")


def define(parser: CommandParser) -> None:
    """The command and its flags."""
    describe(
        parser,
        _demo,
        """
        Starts a simulated Batch account on a free port of this machine and the exporter on top of
        it, and says which URLs to open. While it runs another scenario can be begun, and any of
        some 120 faults played. docs/tour.md shows what to look at.
        """,
        examples={
            "azure-batch-exporter demo": "a healthy account, on port 10225",
            "azure-batch-exporter demo --scenario=prep-storm": "one that has a bad day",
        },
        scenarios=simulate.SCENARIOS,
    )
    simulate.add_scenario(parser)
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
    from exporter.service import process
    from exporter.service.service import open_service

    stop = process.stop_on_signals()

    def announce(urls: tuple[str, ...]) -> None:
        shown = dict.fromkeys(_ALL_INTERFACES.sub("//localhost:", url) for url in urls)
        print(instructions(simulation, options.scenario, tuple(shown), options.telemetry_path))
        print("Press Ctrl-C to stop.", flush=True)

    settings = simulate.Settings(scenario=options.scenario)
    host, port = options.simulator_address
    async with simulate.simulated_account(settings, host or "127.0.0.1", port) as simulation:
        loaded = demo_config(simulation)
        async with open_service(loaded, revision=flags.revision()) as service:
            await process.run(service, flags.listener(options), lambda: loaded, stop, announce)
    return 0


def instructions(
    simulation: simulator.Simulation, scenario: str, urls: tuple[str, ...], metrics: str
) -> str:
    """The lines that tell the user which URLs to open and what to try. `metrics`: a path."""
    control = simulation.endpoint + simulator.SCENARIO_PATH
    faults = simulation.endpoint + simulator.FAULTS_PATH
    others = [name for name in simulate.SCENARIOS if name != scenario]
    width = max(map(len, others))
    lines = [
        f"A simulated Batch account at {simulation.endpoint}",
        f"lives the scenario {scenario}. {simulate.SCENARIOS[scenario]}",
        "",
        "Open",
        *(f"  {url}/ for people, {url}{metrics} for Prometheus" for url in urls),
        "  All series are there within 10 seconds.",
        "",
        "Change the scenario",
        f"""  curl -X PUT {control} -d '{{"scenario": "{others[0]}"}}'""",
        *(f"  {name.ljust(width)}  {simulate.SCENARIOS[name]}" for name in others),
        "",
        "Play any of some 120 faults, and end that",
        f"""  curl -X PUT {faults} -d '{{"faults": [{{"name": "outage"}}]}}'""",
        f"  curl -X DELETE {faults}",
        f"  curl {faults} names them all",
        "",
        "docs/tour.md shows what to look at.",
    ]
    return "\n".join(lines)


def demo_config(simulation: simulator.Simulation) -> Config:
    """A configuration that watches everything of a simulated account, often."""
    from exporter.config import loader

    environ[KEY_VARIABLE] = simulation.account_key
    account = {
        "name": simulation.account_name,
        "endpoint": simulation.endpoint,
        "auth": {"method": "shared_key", "key_env": KEY_VARIABLE},
        "requests_per_second": 200,
        "discovery_interval": "5s",
        "jobs": [{"id_regex": ".*", "completed_for": "1h"}],
    }
    text = json.dumps({"defaults": {"interval": "5s"}, "accounts": [account]})
    return loader.parse(text, "demo", Path())
