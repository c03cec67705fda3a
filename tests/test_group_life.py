"""How long a group lives, and what ends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from exporter.collectors import JOB_COLLECTORS
from exporter.config import Config, Rule, loader
from exporter.service.process import Listener, run
from exporter.service.service import Service, open_service
from exporter.simulator import SCENARIOS, Clock, Simulation, World, serve
from exporter.state.journal import StateFile
from exporter.web.server.limits import Limits
from exporter.web.server.web_config_file import Settings
from tests.scraping import read
from tests.test_shard import shown

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = 86400.0
COMPLETED = "azure_batch_job_tasks_completed_total"


@pytest.mark.parametrize(
    ("template", "group", "can"),
    [
        ("all", "all", True),
        ("all", "all2", False),
        ("${pipeline}", "rnaseq", True),
        ("${pipeline}", "none", True),  # where the placeholder is empty
        ("nf-${pipeline}.${pool_id}", "nf-a.b", True),
        ("nf-${pipeline}.${pool_id}", "nf-ab", False),
        ("nf-${pipeline}", "none", False),
        ("${pipeline}-${metadata.env}", "a\nb-prod", True),
        (None, "all", False),
    ],
)
def test_a_rule_can_make_the_groups_of_its_template(
    template: str | None, group: str, can: bool
) -> None:
    assert Rule(id_regex="(?P<pipeline>.*)", group=template).can_make(group) is can


@pytest.fixture
async def account(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Simulation, Clock]]:
    """A simulated account whose time stands still."""
    world = World(SCENARIOS["steady"], seed=6, jobs=6, nodes=4, start=START)
    clock = Clock(START, speed=0.0)
    async with serve(world, clock, simulated_date=True) as simulation:
        monkeypatch.setenv("SIMULATED_KEY", simulation.account_key)
        yield simulation, clock


def config(simulation: Simulation, folder: Path, *rules: dict[str, Any], **more: Any) -> Config:
    account = {
        "name": simulation.account_name,
        "endpoint": simulation.endpoint,
        "auth": {"method": "shared_key", "key_env": "SIMULATED_KEY"},
        "requests_per_second": 1000,
        "jobs": list(rules),
    }
    data = {"accounts": [account], "state_file": "state.db", **more}
    return loader.parse(json.dumps(data), "c.yaml", folder)


@asynccontextmanager
async def opened(made: Config, clock: Clock) -> AsyncIterator[Service]:
    async with open_service(made, now=lambda: clock.now().timestamp()) as service:
        yield service


async def rounds(service: Service, clock: Clock, count: int = 4) -> None:
    for _ in range(count):
        clock.advance(20.0)
        await service.run_once()
        await service.settle()
        read(service)
    await service.settle()


async def let_go(service: Service) -> None:
    """What is forgotten is shown until its last value was read."""
    for _ in range(2):
        read(service)
        await service.settle()


def groups(service: Service) -> set[str]:
    """The groups of which counters are shown."""
    labels = [dict(labels) for name, labels in shown(service) if name == COMPLETED]
    return {each["job_group"] for each in labels if "job_group" in each}


async def saved(folder: Path, account: str) -> set[str]:
    """The groups that the state file knows."""
    file = StateFile(folder / "state.db", JOB_COLLECTORS, lambda _: None)
    known = file.load(account)
    await file.close()
    return {owner[1] for owner, _ in known.counters if owner and owner[0] == "job_group"} | {
        *known.groups
    }


ALL = {"id_regex": ".*"}


@pytest.mark.parametrize("restarts", [False, True], ids=["reload", "restart"])
async def test_a_group_that_no_rule_makes_any_more_is_forgotten_at_once(
    restarts: bool, account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, clock = account
    one = config(simulation, tmp_path, {**ALL, "group": "one"})
    two = config(simulation, tmp_path, {**ALL, "group": "two"})
    async with opened(one, clock) as service:
        await rounds(service, clock)
        assert groups(service) == {"one"}
        if not restarts:
            await service.configure(two)
            await let_go(service)
            assert groups(service) == set()  # a group is shown with its first poll
            await rounds(service, clock)
            assert groups(service) == {"two"}
    if restarts:
        async with opened(two, clock) as service:
            await let_go(service)
            assert groups(service) == set()
            await rounds(service, clock)
            assert groups(service) == {"two"}
    assert await saved(tmp_path, simulation.account_name) == {"two"}


async def test_jobs_that_no_rule_names_any_more_do_not_make_their_group_again(
    account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, clock = account
    async with opened(config(simulation, tmp_path, {**ALL, "group": "one"}), clock) as service:
        await rounds(service, clock)
        before = total(service)
        clock.advance(20.0)
        other = {"id_regex": "no such job", "group": "two"}
        await service.configure(config(simulation, tmp_path, other))
        await rounds(service, clock, 2)  # they are read once more
        assert total(service) > before
        assert groups(service) == set()
    assert await saved(tmp_path, simulation.account_name) == set()


def total(service: Service) -> float:
    of_account = "azure_batch_account_tasks_completed_total"
    return sum(value for (name, _), value in shown(service).items() if name == of_account)


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_group_is_forgotten_when_no_job_of_it_was_seen_for_long(
    restarts: bool, account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, clock = account
    grouped = {"id_regex": "no such job", "group": "${pool_id}"}
    rules = (grouped, {**ALL, "group": "kept"})
    before = config(simulation, tmp_path, {**ALL, "group": "old"})
    after = config(simulation, tmp_path, *rules, defaults={"keep_groups_for": "7d"})
    at = clock.now().timestamp()
    async with open_service(before, now=lambda: at) as service:
        await rounds(service, clock)
        assert groups(service) == {"old"}
        await service.configure(after)
        at += 7 * DAY - 1
        await rounds(service, clock)
        assert groups(service) == {"old", "kept"}
        if not restarts:
            at += 1
            await rounds(service, clock)
            assert groups(service) == {"kept"}
    at += 1
    async with open_service(after, now=lambda: at) as service:
        await let_go(service)
        assert groups(service) == {"kept"}


async def test_a_group_that_comes_back_at_once_goes_on(
    account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, clock = account
    one = config(simulation, tmp_path, {**ALL, "group": "one"})
    async with opened(one, clock) as service:
        await rounds(service, clock)
        before = total_of_groups(service)
        await service.configure(config(simulation, tmp_path, {**ALL, "group": "two"}))
        await service.configure(one)
        await service.settle()
        assert total_of_groups(service) == before > 0
    async with opened(one, clock) as service:
        assert total_of_groups(service) == before


def total_of_groups(service: Service) -> float:
    return sum(value for (name, _), value in shown(service).items() if name == COMPLETED)


@pytest.mark.parametrize("is_read", [True, False], ids=["read", "ended before"])
async def test_a_group_can_be_forgotten_by_hand(
    is_read: bool, account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, clock = account
    name = simulation.account_name
    made = config(simulation, tmp_path, {**ALL, "group": "${pool_id}"})
    async with opened(config(simulation, tmp_path, {**ALL, "group": "old"}), clock) as service:
        await rounds(service, clock)
        await service.configure(made)
        await rounds(service, clock)
        others = groups(service) - {"old"}
        living = service.store.accounts[name].living_groups
        assert others != groups(service)
        async with aiohttp.ClientSession() as session:

            async def forget(url: str, method: str = "POST", **query: str) -> int:
                path = f"{url}/-/forget-group"
                return (await session.request(method, path, params=query)).status

            old = {"account": name, "job_group": "old"}
            async with listening(service, made, enable_lifecycle=False) as url:
                assert await forget(url, **old) == 403
            async with listening(service, made, enable_lifecycle=True) as url:
                assert await forget(url, "GET", **old) == 405
                assert await forget(url, account=name) == 404
                assert await forget(url, account="x", job_group="old") == 404
                assert await forget(url, account=name, job_group=min(living)) == 409
                assert groups(service) == others | {"old"}
                assert await forget(url, **old) == 200
        if is_read:
            await let_go(service)
            assert groups(service) == others
    assert await saved(tmp_path, name) == others


@asynccontextmanager
async def listening(
    service: Service, made: Config, *, enable_lifecycle: bool
) -> AsyncIterator[str]:
    stop, urls = asyncio.Event(), asyncio.Queue[tuple[str, ...]]()
    listener = Listener((("127.0.0.1", 0),), "/metrics", Settings, Limits(), enable_lifecycle)
    running = asyncio.create_task(run(service, listener, lambda: made, stop, urls.put_nowait))
    yield (await urls.get())[0]
    stop.set()
    await running
