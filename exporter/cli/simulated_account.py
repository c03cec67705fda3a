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
    return dict(simulator.SUMMARIES)


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


def welcome(
    simulation: simulator.Simulation, scenario: str, urls: tuple[str, ...], metrics: str
) -> str:
    """What whoever started the demo can open, and do. `metrics`: their path below `urls`."""
    control = simulation.endpoint + simulator.SCENARIO_PATH
    faults = simulation.endpoint + simulator.FAULTS_PATH
    others = [name for name in scenarios() if name != scenario]
    width = max(map(len, others))
    lines = [
        f"A simulated Batch account at {simulation.endpoint}",
        f"lives the scenario {scenario}. {scenarios()[scenario]}",
        "",
        "Open",
        *(f"  {url}/ for people, {url}{metrics} for Prometheus" for url in urls),
        "  All series are there within 10 seconds.",
        "",
        "Change the scenario",
        f"""  curl -X PUT {control} -d '{{"scenario": "{others[0]}"}}'""",
        *(f"  {name.ljust(width)}  {scenarios()[name]}" for name in others),
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
