"""`demo`: the exporter on a simulated account, with nothing to configure."""

from __future__ import annotations

import argparse
import json
import re
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli import flags, simulate
from exporter.cli.parsing import revision
from exporter.service import logs

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.simulator import Simulation

KEY_VARIABLE = "AZURE_BATCH_EXPORTER_DEMO_KEY"
"""The environment variable with the simulated account's key, for the demo's configuration."""

HELP = f"""\
Starts a simulated Batch account on a free port of this machine and the
exporter on top of it, and prints the URLs to open. While it runs, the scenario
can be changed and about 120 faults can be injected. docs/tour.md shows what to
look at.

examples:
  azure-batch-exporter demo
      a healthy account, on port 10225
  azure-batch-exporter demo --scenario=prep-storm
      one with failures

{simulate.SCENARIOS_HELP}

{flags.EXIT_STATUS}
"""

_ALL_INTERFACES = re.compile(r"//(0\.0\.0\.0|\[::\]):")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    simulate.add_simulator_flags(parser, "--simulator.listen-address")
    flags.add_log_flags(parser)
    flags.add_web_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal stops the process."""
    import asyncio

    logs.configure(options.log_level, options.log_format)
    return asyncio.run(_serve(options))


async def _serve(options: argparse.Namespace) -> int:
    from exporter.service import process
    from exporter.service.service import open_service

    stop = process.stop_on_signals()

    def announce(urls: tuple[str, ...]) -> None:
        shown = dict.fromkeys(_ALL_INTERFACES.sub("//localhost:", url) for url in urls)
        metrics = options.web_telemetry_path
        print(instructions(simulation.endpoint, options.scenario, tuple(shown), metrics))
        print("Press Ctrl-C to stop.", flush=True)

    host, port = options.simulator_listen_address
    account = simulate.simulated_account(options.scenario, host or "127.0.0.1", port)
    async with account as simulation:
        loaded = demo_config(simulation)
        async with open_service(loaded, revision=revision()) as service:
            await process.run(service, flags.listener(options), lambda: loaded, stop, announce)
    return 0


def instructions(endpoint: str, scenario: str, urls: tuple[str, ...], metrics: str) -> str:
    """The lines that tell the user which URLs to open and what to try. `metrics`: a path."""
    from exporter.simulator import FAULTS_PATH, SCENARIO_PATH

    control, faults = endpoint + SCENARIO_PATH, endpoint + FAULTS_PATH
    others = [name for name in simulate.SCENARIOS if name != scenario]
    pages = "\n".join(f"  {url}/ for people, {url}{metrics} for Prometheus" for url in urls)
    scenarios = "\n".join(f"  {name:17}  {simulate.SCENARIOS[name]}" for name in others)
    return f"""\
A simulated Batch account at {endpoint}
runs the scenario {scenario}. {simulate.SCENARIOS[scenario]}

Open
{pages}
  All series are there within 10 seconds.

Change the scenario
  curl -X PUT {control} -d '{{"scenario": "{others[0]}"}}'
{scenarios}

Inject one of about 120 faults, then clear it
  curl -X PUT {faults} -d '{{"faults": [{{"name": "outage"}}]}}'
  curl -X DELETE {faults}
  curl {faults} names them all

docs/tour.md shows what to look at."""


def demo_config(simulation: Simulation) -> Config:
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
