"""A service that is killed and started again with its state file counts as one that never was."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter import configfile
from exporter.exposition import Format
from exporter.service import Service, open_service
from exporter.simulator import SCENARIOS, Clock, Simulation, World, serve
from exporter.state_file import Changes, StateFile
from tests.truth import Series

START = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Exporter:
    """A service that may be killed: what it had not written by then is lost."""

    def __init__(
        self, simulation: Simulation, clock: Clock, folder: Path, group: str, *, saves: bool
    ) -> None:
        state_file = "state_file: state.db" if saves else ""
        text = f"""
{state_file}
accounts:
  - name: {simulation.account_name}
    endpoint: {simulation.endpoint}
    auth: {{method: shared_key, key_env: SIMULATED_KEY}}
    requests_per_second: 1000
    jobs: [{{id_regex: '.*'{group}}}]
"""
        self._config = configfile.parse(text, "c.yaml", folder)
        self._clock = clock
        self._stack = AsyncExitStack()
        self.service: Service | None = None

    async def start(self) -> None:
        opened = open_service(self._config, now=lambda: self._clock.now().timestamp())
        self.service = await self._stack.enter_async_context(opened)

    async def kill(self) -> None:
        """End without writing what waits to be written."""
        assert self.service is not None
        journal = self.service.store._totals._journal
        if isinstance(journal, StateFile):
            while not journal._queue.empty():
                journal._queue.get()
        await self.stop()

    async def stop(self) -> None:
        await self._stack.aclose()
        self.service = None

    async def poll(self) -> None:
        """Poll everything once, without waiting until it is written."""
        assert self.service is not None
        await self.service.run_once()

    async def round(self) -> Series:
        """Poll everything once, and give all counters that are exposed then."""
        await self.poll()
        await self.written()
        assert self.service is not None
        counters: Series = {}
        for family in parse_text(self.service.exposition.body(Format.TEXT).plain.decode()):
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    counters[sample.name, frozenset(sample.labels.items())] = sample.value
        return counters

    async def written(self) -> None:
        """Wait until all changes are written, and so shown."""
        assert self.service is not None
        journal = self.service.store._totals._journal
        if isinstance(journal, StateFile):
            done = asyncio.Event()
            journal.write(Changes("none"), done.set)
            await asyncio.wait_for(done.wait(), 10)


@asynccontextmanager
async def exporters(
    folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, seed: int
) -> AsyncIterator[tuple[Clock, Exporter, Exporter]]:
    """One that is never stopped, and one with a state file."""
    world = World(SCENARIOS["steady"], seed=seed, jobs=6, nodes=4, start=START)
    clock = Clock(START, speed=0.0)
    async with serve(world, clock) as simulation:
        monkeypatch.setenv("SIMULATED_KEY", simulation.account_key)
        lasting = Exporter(simulation, clock, folder, group, saves=False)
        killed = Exporter(simulation, clock, folder, group, saves=True)
        await lasting.start()
        await killed.start()
        yield clock, lasting, killed
        await lasting.stop()
        await killed.stop()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("group", ["", ", group: all"], ids=["single jobs", "a group"])
async def test_counters_go_on_where_they_stopped(
    group: str, seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    restarts = 0
    highest: Series = {}
    async with exporters(tmp_path, monkeypatch, group, seed) as (clock, lasting, killed):
        for _ in range(25):
            clock.advance(chance.uniform(1.0, 40.0))
            expected = await lasting.round()
            shown = await killed.round()
            for key, value in shown.items():
                # A series of a job that left and came back begins anew, as Prometheus expects.
                if "job_id" not in dict(key[1]):
                    assert value >= highest.get(key, 0), key
                    highest[key] = value
            if chance.random() < 0.4:
                restarts += 1
                clock.advance(chance.uniform(0.0, 20.0))
                await lasting.round()
                await killed.poll()  # perhaps none of this is written
                await killed.kill()
                await killed.start()
        for _ in range(2):  # what appeared last is shown in full with the next round
            expected, shown = await lasting.round(), await killed.round()
        assert shown.keys() == expected.keys()
        for key, value in expected.items():
            if key[0] == "azure_batch_job_tasks_started_total":
                # running + completed falls with a requeue, so that a start may be seen only by
                # who looks between; who was killed before he wrote it down has not looked.
                assert shown[key] <= value
            else:
                assert shown[key] == value, key
        assert restarts >= 5
        of_account = "azure_batch_account_tasks_completed_total"
        assert sum(value for key, value in shown.items() if key[0] == of_account) > 100
        failed = "azure_batch_account_preparation_tasks_failed_total"
        assert sum(value for key, value in shown.items() if key[0] == failed) > 0
