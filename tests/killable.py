"""An exporter over a simulated account that may be killed and started again."""

from __future__ import annotations

import asyncio
import queue
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.config import loader
from exporter.exposition.body import Format
from exporter.service.service import Service, open_service
from exporter.simulator import Clock, Simulation
from exporter.state.account import JOBS
from exporter.state.journal import StateFile
from exporter.state.saved import Changes
from exporter.state.totals import Journal
from tests.scraping import read
from tests.truth import Series


@dataclass
class Dying:
    """The journal of a process that is killed when it has written so many changes."""

    journal: Journal
    most: int
    written: list[Changes] = field(default_factory=list)

    def write(self, changes: Changes, done: Callable[[], None]) -> None:
        if len(self.written) < self.most:
            self.written.append(changes)
            self.journal.write(changes, done)


class Exporter:
    """A service that may be killed: what it had not written by then is lost."""

    def __init__(
        self,
        simulation: Simulation,
        clock: Clock,
        folder: Path,
        group: str,
        *,
        saves: bool,
        defaults: str = "{}",
    ) -> None:
        state_file = "state_file: state.db" if saves else ""
        text = f"""
{state_file}
defaults: {defaults}
accounts:
  - name: {simulation.account_name}
    endpoint: {simulation.endpoint}
    auth: {{method: shared_key, key_env: SIMULATED_KEY}}
    requests_per_second: 1000
    jobs: [{{id_regex: '.*', collect: [task_counts, preparation_release, tasks]{group}}}]
"""
        self._config = loader.parse(text, "c.yaml", folder)
        self._clock = clock
        self.world = simulation.world
        self._folder = folder
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
            with suppress(queue.Empty):  # its thread takes changes at the same time
                while True:
                    journal._queue.get_nowait()
        await self.stop()

    async def stop(self) -> None:
        await self._stack.aclose()
        self.service = None

    async def poll(self, *, lists_jobs: bool = True) -> None:
        """Poll everything once, without waiting until it is written.

        Jobs are listed first: what is polled beside a listing may yet take a job that was made
        again for the one before it. Or the jobs are not listed, only those that are known polled.
        """
        assert self.service is not None
        for polled in self.service._accounts.values():
            polls = polled.poller.scheduler.polls()
            if not lists_jobs:
                await asyncio.gather(
                    *(poll.run(key) for key, poll in polls.items() if key != (JOBS,))
                )
            elif polls:
                await polled.poller._poll_jobs((JOBS,))
        if lists_jobs:
            await self.service.run_once()

    async def poll_and_die(self, writes: int, *, lists_jobs: bool = True) -> list[Changes]:
        """Poll, and be killed when so many changes are written; gives those."""
        assert self.service is not None
        totals = self.service.store._totals
        assert totals._journal is not None
        totals._journal = dying = Dying(totals._journal, writes)
        await self.poll(lists_jobs=lists_jobs)
        await self.stop()
        return dying.written

    async def round(self, *, lists_jobs: bool = True) -> Series:
        """Poll everything once, and give all counters that are exposed then."""
        await self.poll(lists_jobs=lists_jobs)
        await self.written()
        return {key: value for key, value in self.exposed().items() if key[0].endswith("_total")}

    def exposed(self) -> Series:
        """All series of the state, as a client reads them."""
        assert self.service is not None
        self.service.store.flush()
        text = self.service.exposition.body(Format.TEXT).plain.decode()
        read(self.service)
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in parse_text(text)
            for sample in family.samples
        }

    def answers(self, operation: str) -> Counter[str]:
        """How often the service gave each status to an operation."""
        assert self.service is not None
        found: Counter[str] = Counter()
        own = self.service.telemetry.text(Format.TEXT, 0).decode()
        for family in parse_text(own):
            for sample in family.samples:
                of_requests = sample.name == "azure_batch_exporter_requests_total"
                if of_requests and sample.labels["operation"] == operation:
                    found[sample.labels["code"]] += int(sample.value)
        return found

    def remove_file(self) -> None:
        """Remove the state file, as somebody may while a process has it open."""
        for file in self._folder.glob("state.db*"):
            if not file.name.endswith(".lock"):
                file.unlink()

    async def file_works(self) -> None:
        """Wait until there is a state file again that has all that is known."""
        assert self.service is not None
        journal = self.service.store._totals._journal
        assert isinstance(journal, StateFile)
        async with asyncio.timeout(200):
            while journal._connection is None:  # noqa: ASYNC110 - a thread writes it
                await asyncio.sleep(0.01)
        await self.written()

    async def written(self) -> None:
        """Wait until all changes are written, and so shown."""
        assert self.service is not None
        journal = self.service.store._totals._journal
        if isinstance(journal, StateFile):
            done = asyncio.Event()
            journal.write(Changes("none"), done.set)
            await asyncio.wait_for(done.wait(), 200)
