"""The real process on a disk that is full, and killed there: what a Prometheus would read of it."""

from __future__ import annotations

import asyncio
import re
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.e2e.test_ending import configure
from tests.fake_batch import FakeBatch
from tests.process import limit_files, logged_address, program

COMPLETED = "azure_batch_job_tasks_completed_total"
WORKS = "azure_batch_exporter_state_file_works"

pytestmark = pytest.mark.full


class Running:
    """An exporter that polls one job every second."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self._url = url
        self._session = aiohttp.ClientSession()

    async def value(self, name: str) -> float:
        """The highest sample of this name in a scrape; 0 if there is none."""
        text = await (await self._session.get(self._url)).text()
        values = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
        return max(map(float, values), default=0.0)

    async def until(self, name: str, least: float, most: float = 1e9) -> float:
        async with asyncio.timeout(200):
            while not least <= (found := await self.value(name)) <= most:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        return found

    async def kill(self) -> None:
        await self._session.close()
        self.process.kill()
        await self.process.communicate()


@asynccontextmanager
async def running(file: Path) -> AsyncIterator[Running]:
    async with program("run", f"--config.file={file}", "--web.listen-address=127.0.0.1:0") as it:
        yield Running(it, await logged_address(it))


def counting(batch: FakeBatch, folder: Path) -> Path:
    """A job with a hundred more succeeded tasks at each poll."""
    file = configure(batch, folder, state_file="state.db")
    counts = ({"taskCounts": {"completed": n, "succeeded": n}} for n in range(0, 10**6, 100))

    async def grown(_: web.Request) -> web.StreamResponse:
        return web.json_response(next(counts))

    batch.on("/jobs/a/taskcounts", grown)
    return file


async def test_killed_on_a_full_disk_it_begins_at_0(batch: FakeBatch, tmp_path: Path) -> None:
    file = counting(batch, tmp_path)
    async with running(file) as first:
        await first.until(COMPLETED, 300)
        limit_files(first.process, 0)
        await first.until(WORKS, 0, 0)
        last = await first.until(COMPLETED, await first.value(COMPLETED) + 300)  # it goes on
        await first.kill()
    async with running(file) as second:
        assert await second.until(COMPLETED, 1) < last
        assert await second.value(WORKS) == 1
        await second.kill()


async def test_when_there_is_room_again_all_is_saved(batch: FakeBatch, tmp_path: Path) -> None:
    file = counting(batch, tmp_path)
    async with running(file) as first:
        await first.until(COMPLETED, 300)
        limit_files(first.process, 0)
        await first.until(WORKS, 0, 0)
        limit_files(first.process, resource.RLIM_INFINITY)
        await first.until(WORKS, 1)
        last = await first.value(COMPLETED)
        await first.kill()
    async with running(file) as second:
        assert await second.until(COMPLETED, 1) >= last
        await second.kill()
