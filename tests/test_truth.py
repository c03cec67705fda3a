"""A whole simulated account against the simulator's own truth, value by value, in both formats."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter import config
from exporter.config import loader
from exporter.exposition.body import Format
from exporter.service.service import Service, open_service
from exporter.simulator import SCENARIOS, Clock, Simulation, World, serve
from exporter.web.app import build_app
from exporter.web.server.listener import listen
from tests.truth import Series, Truth

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
ALL_STATES = [
    *["active", "disabling", "disabled", "enabling", "terminating", "completed", "deleting"]
]
HISTOGRAM = ("_bucket", "_count", "_sum")


def config_of(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> config.Config:
    monkeypatch.setenv("SIMULATED_KEY", simulation.account_key)
    text = f"""
defaults: {{interval: 30s}}
accounts:
  - name: {simulation.account_name}
    endpoint: {simulation.endpoint}
    auth: {{method: shared_key, key_env: SIMULATED_KEY}}
    requests_per_second: 1000
    jobs:
      - id_regex: '.*'
        states: {ALL_STATES}
        collect: [task_counts, preparation_release, tasks]
"""
    return loader.parse(text, "c.yaml", tmp_path)


def exposed(families: Iterable[Any]) -> Series:
    """All samples but the exporter's own; none may stand twice."""
    series: Series = {}
    for family in families:
        for sample in family.samples:
            if sample.name.startswith(("azure_batch_exporter_", "process_", "python_")):
                continue
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in series, key
            series[key] = sample.value
    return series


async def scraped(service: Service, accept: str) -> str:
    """What a scraper gets over HTTP."""
    server = await listen(build_app(service, "/metrics"), (("127.0.0.1", 0),))
    try:
        async with (
            aiohttp.ClientSession(server.urls[0], headers={"Accept": accept}) as session,
            session.get("/metrics") as response,
        ):
            return await response.text()
    finally:
        await server.close()


CURE = (
    "a series of exporter/collectors/ is wrong, or tests/truth.py does not compute it:"
    " a new metric needs its value there, written by hand"
)


def difference(shown: Series, expected: Series) -> dict[Any, Any]:
    return {
        key: (shown.get(key), expected.get(key))
        for key in shown.keys() | expected.keys()
        if shown.get(key) != expected.get(key)
    }


# Large: every job runs on about every node; a test of its own shows that it does.
LARGE = dataclasses.replace(
    SCENARIOS["steady"],
    pools=(1, 1),
    tasks_per_job=(500, 700),
    slots_per_node=(32,),
    task_median=60.0,
    preparation_share=0.9,
    warm_up=2400.0,
    auto_scale_pools=0,
)


@pytest.mark.parametrize(
    ("scenario", "jobs", "nodes", "rounds"),
    [
        pytest.param(SCENARIOS["steady"], 12, 8, 4, id="small"),
        pytest.param(LARGE, 200, 100, 2, id="200 jobs x 100 nodes", marks=pytest.mark.full),
    ],
)
async def test_every_value_is_the_simulators_own_at_the_same_instant(
    scenario: Any,
    jobs: int,
    nodes: int,
    rounds: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    world = World(scenario, seed=7, jobs=jobs, nodes=nodes, start=START)
    clock = Clock(START, speed=0.0)
    seen: set[str] = set()
    async with serve(world, clock, simulated_date=True) as simulation:
        loaded = config_of(simulation, monkeypatch, tmp_path)
        for _ in range(rounds):
            clock.advance(20.0)
            world.advance(clock.now())
            # A fresh service each round: what it has never seen before is exposed whole, too.
            now = clock.now().timestamp()
            expected = Truth(world, simulation.account_name, now).everything()
            async with open_service(loaded, now=lambda now=now: now) as service:  # type: ignore[misc]
                await service.run_once()
                for text, parse in (
                    (await scraped(service, "text/plain"), parse_text),
                    (
                        await scraped(service, "application/openmetrics-text;version=1.0.0"),
                        parse_openmetrics,
                    ),
                ):
                    shown = exposed(parse(text))  # type: ignore[operator]
                    assert difference(shown, expected) == {}, CURE
                    assert len(shown) > jobs * 25
                    seen |= {name for name, _ in shown}
    assert {
        "azure_batch_job_preparation_failed_tasks",
        "azure_batch_job_preparation_oldest_running_start_timestamp_seconds",
        "azure_batch_job_release_tasks",
        "azure_batch_job_ended_timestamp_seconds",
    } <= seen
    if jobs == 200:
        busiest = sorted(len(job.records) for job in world.jobs.values() if job.preparation)
        assert busiest[len(busiest) // 2] >= 95, busiest


async def test_one_service_follows_a_living_account(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Jobs come and go and change between the rounds of one service; no value lags behind."""
    world = World(SCENARIOS["steady"], seed=3, jobs=10, nodes=6, start=START)
    clock = Clock(START, speed=0.0)
    known: set[str] = set()
    gone: set[str] = set()
    async with serve(world, clock, simulated_date=True) as simulation:
        loaded = config_of(simulation, monkeypatch, tmp_path)
        async with open_service(loaded, now=lambda: clock.now().timestamp()) as service:
            for _ in range(12):
                clock.advance(30.0)
                world.advance(clock.now())
                await service.run_once()
                now = clock.now().timestamp()
                expected = Truth(world, simulation.account_name, now).everything()
                shown = exposed(parse_text(service.exposition.body(Format.TEXT).plain.decode()))
                wrong = difference(shown, expected)
                # What is counted is the exporter's own observation, and has tests of its own.
                observed = ("_total", "last_progress_timestamp_seconds", *HISTOGRAM)
                assert {k: wrong[k] for k in wrong if not k[0].endswith(observed)} == {}, CURE
                gone |= known - world.jobs.keys()
                known |= world.jobs.keys()
    assert len(gone) >= 3, "no job was deleted in this story"


def test_the_same_seed_gives_the_same_truth() -> None:
    def truth() -> Series:
        world = World(SCENARIOS["steady"], seed=5, jobs=6, nodes=4, start=START)
        world.advance(START + timedelta(seconds=60))
        return Truth(world, "a", 0.0).everything()

    assert truth() == truth()
