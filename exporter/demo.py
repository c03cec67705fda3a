"""The simulated account on the command line: alone, or with the exporter on top of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from os import environ
from pathlib import Path

from exporter import simulator
from exporter.config import Config, loader

KEY_VARIABLE = "AZURE_BATCH_EXPORTER_DEMO_KEY"
"""Where the demo's configuration finds the simulated account's key, as any other would."""


@dataclass(frozen=True)
class Settings:
    """What is simulated. `nodes`: of each fixed pool. `speed`: simulated seconds to a real one."""

    scenario: str = "steady"
    seed: int = 1
    jobs: int = 12
    nodes: int = 8
    speed: float = 1.0


def scenarios() -> dict[str, str]:
    """The scenarios there are: name and one line about each."""
    worlds = {name: scenario.summary for name, scenario in simulator.SCENARIOS.items()}
    return worlds | {name: fault.summary for name, fault in simulator.FAULT_SCENARIOS.items()}


@asynccontextmanager
async def simulated_account(
    settings: Settings, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[simulator.Simulation]:
    """Serve a simulated account that starts now. OSError where the port cannot be had."""
    start = datetime.now(UTC)
    faults, scenario = simulator.Faults(seed=settings.seed), settings.scenario
    if scenario in simulator.FAULT_SCENARIOS:
        faults.set(simulator.Rule(scenario))
        scenario = "steady"
    world = simulator.World(
        simulator.SCENARIOS[scenario],
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
        routes=simulator.fault_routes(faults),
        host=host,
        port=port,
    ) as simulation:
        yield simulation


def fault_calls(simulation: simulator.Simulation) -> str:
    """How to switch faults of a simulated account on and off, as shell commands."""
    url = simulation.endpoint + simulator.FAULTS_PATH
    return (
        f"""Break it: curl -X PUT {url} -d '{{"faults": [{{"name": "outage"}}]}}'\n"""
        f"All faults: curl {url}   Heal it: curl -X DELETE {url}"
    )


def demo_config(simulation: simulator.Simulation) -> Config:
    """A configuration that watches everything of a simulated account, often."""
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
