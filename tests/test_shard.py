"""Jobs split between processes: who owns which, and that together they show what one would."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.collectors import tables
from exporter.config import Config, loader
from exporter.config.shard import WHOLE, Shard
from exporter.exposition.body import Format
from exporter.service.service import Service, open_service
from exporter.simulator import SCENARIOS, Clock, Simulation, World, serve
from exporter.simulator.ledger import TaskCompleted
from tests.fake_batch import FakeBatch
from tests.scraping import read
from tests.truth import Series

JOBS = [f"nf-rnaseq-{number}" for number in range(10_000)]


@cache
def owners(count: int) -> list[int]:
    """Which of so many shards owns each of the jobs."""
    shards = [Shard(index, count) for index in range(count)]
    found = [[shard.index for shard in shards if shard.owns("acc", job_id)] for job_id in JOBS]
    assert {len(of_job) for of_job in found} == {1}
    return [owner for (owner,) in found]


def test_each_job_has_one_owner_and_each_shard_has_as_many() -> None:
    sizes = Counter(owners(10)).values()
    assert min(sizes) > 900 and max(sizes) < 1100


def test_one_shard_more_takes_its_jobs_evenly_and_no_other_job_moves() -> None:
    moved = [(old, new) for old, new in zip(owners(10), owners(11), strict=True) if old != new]
    assert {new for _, new in moved} == {10}
    assert len(moved) == pytest.approx(len(JOBS) / 11, rel=0.1)
    assert min(Counter(old for old, _ in moved).values()) > 50


def test_one_shard_less_gives_its_jobs_evenly_to_the_others() -> None:
    moved = [(old, new) for old, new in zip(owners(10), owners(9), strict=True) if old != new]
    assert {old for old, _ in moved} == {9}
    assert len(moved) == pytest.approx(len(JOBS) / 10, rel=0.1)
    assert min(Counter(new for _, new in moved).values()) > 50


def test_a_job_has_the_same_owner_for_ever() -> None:
    # Another version with other numbers would move the jobs of everybody.
    assert owners(10)[:12] == [7, 8, 3, 0, 5, 2, 5, 5, 9, 3, 9, 5]
    assert owners(3)[:12] == [1, 0, 2, 0, 0, 2, 2, 1, 1, 2, 1, 0]
    assert Shard(0, 1).owns("acc", "any")


def test_ids_that_differ_in_case_are_one_job() -> None:
    for index in range(7):
        shard = Shard(index, 7)
        assert shard.owns("acc", "Nightly") == shard.owns("ACC", "nightly")


@pytest.mark.parametrize("text", ["0/1", "3/4", "999/1000"])
def test_a_shard_is_spelled_as_it_is_read(text: str) -> None:
    assert str(Shard.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "1", "1/1", "4/4", "-1/4", "0/0", "a/b", "0/4 ", "1/2/3", "0/1001", "٣/٤", "0,4"]
)
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no shard: write I/N"):
        Shard.parse(text)


# Together they show what one would


START = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
async def account(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Simulation, Clock]]:
    """A simulated account whose time stands still."""
    world = World(SCENARIOS["steady"], seed=6, jobs=12, nodes=4, start=START)
    clock = Clock(START, speed=0.0)
    async with serve(world, clock, simulated_date=True) as simulation:
        monkeypatch.setenv("SIMULATED_KEY", simulation.account_key)
        yield simulation, clock


def config(simulation: Simulation, folder: Path, state_file: str = "", **changes: Any) -> Config:
    settings = {
        "name": simulation.account_name,
        "endpoint": simulation.endpoint,
        "auth": {"method": "shared_key", "key_env": "SIMULATED_KEY"},
        "requests_per_second": 1000,
        "jobs": [{"id_regex": ".*", "completed_for": "1h"}],
        **changes,
    }
    data: dict[str, Any] = {"accounts": [settings]}
    if state_file:
        data["state_file"] = state_file
    return loader.parse(json.dumps(data), "c.yaml", folder)


def shown(service: Service) -> Series:
    text = service.exposition.body(Format.TEXT).plain.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def merged(parts: Iterable[Series]) -> Series:
    """What the shards show, put together as docs/scaling.md says."""
    merges = {row.name: row.merge or max for table in tables().values() for row in table.metrics}
    merges["azure_batch_up"] = min
    merges["azure_batch_account_scrape_success"] = min
    merges["azure_batch_account_last_scrape_success_timestamp_seconds"] = min
    values: dict[Any, list[float]] = {}
    for part in parts:
        for key, value in part.items():
            values.setdefault(key, []).append(value)
    return {key: merges.get(key[0], sum)(of) for key, of in values.items()}


@pytest.mark.parametrize("group", [None, "${pipeline}"])
async def test_the_sums_of_two_shards_are_what_one_process_shows(
    group: str | None, account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, clock = account
    rule: dict[str, Any] = {"id_regex": "(?P<pipeline>[a-z]+)-.*", "completed_for": "1h"}
    rule |= {"collect": ["task_counts", "preparation_release", "tasks"]}
    made = config(simulation, tmp_path, jobs=[rule | ({"group": group} if group else {})])
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(
                open_service(made, shard=shard, now=lambda: clock.now().timestamp())
            )
            for shard in (WHOLE, Shard(0, 2), Shard(1, 2))
        ]
        for seconds in (0.0, *[20.0] * 12, 0.0, 0.0, 0.0):  # at last all is shown in full
            clock.advance(seconds)
            for service in services:
                await service.run_once()
                read(service)
        # One may have read a job's counts before it listed that the job was made again.
        whole, *parts = [
            {key: value for key, value in shown(service).items() if "regressions" not in key[0]}
            for service in services
        ]
    assert differences(whole, merged(parts)) == {}
    jobs = [
        sum(value for (name, _), value in part.items() if name == "azure_batch_jobs")
        for part in parts
    ]
    assert min(jobs) >= 3
    has_nodes = [any(name == "azure_batch_pool_nodes" for name, _ in part) for part in parts]
    assert has_nodes == [True, False]


def differences(one: Series, other: Series) -> dict[Any, Any]:
    return {
        key: (one.get(key), other.get(key))
        for key in one.keys() | other.keys()
        if not math.isclose(one.get(key, -1.0), other.get(key, -1.0))
    }


async def test_a_reload_keeps_the_shard_and_its_part_of_the_requests(
    account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, _ = account
    loop = asyncio.get_running_loop()
    async with open_service(config(simulation, tmp_path), shard=Shard(1, 2)) as service:
        await service.run_once()
        before = set(service.store.jobs("simulated"))
        assert before
        rules = [{"id_regex": ".*", "completed_for": "1h", "interval": "60s"}]
        other = config(simulation, tmp_path, jobs=rules, requests_per_second=8)
        await service.configure(other)
        asked, started = simulation.requests.total(), loop.time()
        await service.run_once()
        asked = simulation.requests.total() - asked
        assert set(service.store.jobs("simulated")) == before
        # Two may start at once, the others at half the rate of the account.
        assert loop.time() - started >= (asked - 2) / 4
        own = service.telemetry.text(Format.TEXT, 0).decode()
        assert "azure_batch_exporter_shard 1\n" in own
        assert "azure_batch_exporter_shards 2\n" in own


async def test_a_named_job_is_asked_for_by_its_owner_alone(
    batch: FakeBatch, make_config: Callable[..., Config], official: Callable[[str], Any]
) -> None:
    batch.json("/jobs/Nightly", {**official("JobGet"), "id": "Nightly"})
    batch.json("/jobs/Nightly/taskcounts", official("JobGetTaskCounts"))
    rules = [{"id": "Nightly", "collect": ["task_counts"]}]
    made = make_config(batch.endpoint, jobs=rules, pool_nodes=False)
    asked = []
    for index in range(3):
        async with open_service(made, shard=Shard(index, 3)) as service:
            await service.run_once()
            asked.append(len(batch.requests))
    assert [request.path for request in batch.requests] == [
        "/jobs/Nightly",
        "/jobs/Nightly/taskcounts",
    ]
    assert sorted({0, *asked}) == [0, 2]


# State files

COMPLETED = "azure_batch_account_tasks_completed_total"


async def completed(
    made: Config, clock: Clock, shard: Shard, rounds: int = 4
) -> tuple[float, set[str]]:
    """What a process counts in all after some rounds of 20 seconds, and its jobs."""
    async with open_service(made, shard=shard, now=lambda: clock.now().timestamp()) as service:
        for number in range(rounds + 3):
            await service.run_once()
            await service.settle()
            read(service)
            if number < rounds:
                clock.advance(20.0)
        await service.settle()
        total = sum(value for (name, _), value in shown(service).items() if name == COMPLETED)
        return total, set(service.store.jobs("simulated"))


async def test_a_job_that_moves_is_never_counted_twice(
    account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, clock = account
    made = config(simulation, tmp_path, state_file="state-${shard}.db")
    alone, _ = await completed(made, clock, WHOLE)
    assert alone > 0
    # No time passes: what is counted more would be counted twice.
    halves = [await completed(made, clock, Shard(index, 2), rounds=0) for index in (0, 1)]
    assert [total for total, _ in halves] == [alone, 0.0]
    assert all(jobs for _, jobs in halves)
    other, _ = await completed(made, clock, Shard(1, 2))
    one, of_one = await completed(made, clock, Shard(0, 2))
    assert one > alone and other > 0
    again, of_all = await completed(made, clock, WHOLE, rounds=0)
    assert again == one
    assert of_one < of_all
    assert sorted(file.name for file in tmp_path.glob("*.db")) == ["state-0.db", "state-1.db"]


async def test_a_shard_that_starts_again_goes_on_where_it_was(
    account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, clock = account
    made = config(simulation, tmp_path, state_file="state-${shard}.db")
    first, _ = await completed(made, clock, Shard(1, 2))
    clock.advance(20.0)
    second, _ = await completed(made, clock, Shard(1, 2), rounds=0)
    assert second > first > 0


async def test_with_3_shards_then_2_and_3_again_nothing_is_counted_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World(SCENARIOS["steady"], seed=6, jobs=12, nodes=4, start=START, ledger=True)
    clock = Clock(START, speed=0.0)
    async with serve(world, clock, simulated_date=True) as simulation:
        monkeypatch.setenv("SIMULATED_KEY", simulation.account_key)
        made = config(simulation, tmp_path, state_file="state-${shard}.db")
        for count in (3, 2, 3):
            began = world.tick
            counted = await counted_by(made, clock, count)
            happened = len(world.ledger.of(TaskCompleted, since_tick=began))
            assert happened / 3 < counted <= happened, count


async def counted_by(made: Config, clock: Clock, count: int) -> float:
    """How many completed tasks so many shards count while they run for some minutes."""
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(
                open_service(made, shard=Shard(index, count), now=lambda: clock.now().timestamp())
            )
            for index in range(count)
        ]
        before = sum(map(total, services))
        for seconds in (*[20.0] * 12, 0.0, 0.0, 0.0):
            clock.advance(seconds)
            for service in services:
                await service.run_once()
                await service.settle()
                read(service)
        return sum(map(total, services)) - before


def total(service: Service) -> float:
    return sum(value for (name, _), value in shown(service).items() if name == COMPLETED)


async def test_a_process_that_has_all_jobs_counts_what_happened_while_it_was_away(
    account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, clock = account
    made = config(simulation, tmp_path, state_file="state-${shard}.db")
    first, _ = await completed(made, clock, WHOLE)
    clock.advance(600.0)
    second, _ = await completed(made, clock, WHOLE, rounds=0)
    assert second > first > 0


async def test_a_shard_that_was_away_for_long_counts_from_its_return_on(
    account: tuple[Simulation, Clock], tmp_path: Path
) -> None:
    simulation, clock = account
    made = config(simulation, tmp_path, state_file="state-${shard}.db")
    first, _ = await completed(made, clock, Shard(1, 2))
    clock.advance(600.0)
    second, _ = await completed(made, clock, Shard(1, 2), rounds=0)
    assert second == first > 0
    third, _ = await completed(made, clock, Shard(1, 2))
    assert third > second
