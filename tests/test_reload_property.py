"""After any reloads the series are those of a fresh process with that configuration and state."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exporter.service.service import Service, open_service
from exporter.simulator import SCENARIOS, Clock, Simulation, World, serve
from tests.scraping import read
from tests.test_reload import differences, parse, settings, shown

START = datetime(2036, 6, 1, 12, tzinfo=UTC)  # a job that left is remembered for a month

RULES: tuple[dict[str, Any], ...] = (
    {"id_regex": ".*"},
    {"id_regex": ".*[02468]"},
    {"id_regex": ".*[13579]", "group": "odd"},
    {"id_regex": ".*", "group": "${pool_id}"},
    {"id_regex": ".*", "labels": {"team": "x"}},
    {"id_regex": ".*[0-3]", "collect": ["task_counts"]},
    {"id_regex": ".*", "collect": ["preparation_release", "tasks"]},
    {"id_regex": ".*[0-5]", "collect": ["task_counts", "preparation_release", "tasks"]},
    {"id_regex": "nothing"},
)
EXCLUDED = ((), ("azure_batch_job_task_slots",), ("azure_batch_job_*_total",))


def random_settings(
    random_: random.Random, simulation: Simulation, folder: Path, file: str
) -> dict[str, Any]:
    rules = random_.sample(RULES, random_.randint(1, 3))
    data = settings(simulation, jobs=rules, pool_nodes=random_.random() < 0.7)
    data["exclude_metrics"] = list(random_.choice(EXCLUDED))
    data["state_file"] = str(folder / file)
    return data


async def rounds(service: Service, count: int) -> None:
    for _ in range(count):
        await service.run_once()
        await service.settle()
        read(service)
        await service.settle()


def copied(source: Path, target: Path) -> None:
    """A copy of a state file that is in use."""
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


@pytest.mark.parametrize("seed", range(int(os.environ.get("HISTORIES", "6"))))
async def test_after_any_reloads_the_series_are_those_of_a_fresh_process(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_ = random.Random(seed)
    world = World(SCENARIOS["steady"], seed=seed, jobs=10, nodes=4, start=START)
    clock = Clock(START, speed=0.0)
    async with serve(world, clock, simulated_date=True) as simulation:
        monkeypatch.setenv("SIMULATED_KEY", simulation.account_key)

        def now() -> float:
            return clock.now().timestamp()

        data = random_settings(random_, simulation, tmp_path, "a.db")
        async with open_service(parse(data, tmp_path), now=now) as service:
            await rounds(service, 2)
            for _ in range(4):
                clock.advance(random_.choice((0.0, 20.0)))
                if random_.random() < 0.7:
                    await rounds(service, 1)
                data = random_settings(random_, simulation, tmp_path, "a.db")
                await service.configure(parse(data, tmp_path))
            for _ in range(2):  # groups that are forgotten are in the file until they are read
                await service.settle()
                read(service)
            await service.settle()
            copied(tmp_path / "a.db", tmp_path / "b.db")
            data["state_file"] = str(tmp_path / "b.db")
            async with open_service(parse(data, tmp_path), now=now) as fresh:
                # New series are shown as 0 until they are read.
                await asyncio.gather(rounds(service, 5), rounds(fresh, 5))
                found = differences(shown(fresh), shown(service))
                # Sums of seconds depend on the order in which they are added up.
                assert {k: pair for k, pair in found.items() if pair != approx(pair)} == {}


def approx(pair: tuple[float | None, float | None]) -> object:
    return pytest.approx((pair[1], pair[1])) if None not in pair else None
