"""The process ends when it is asked to, whatever it is at; one that stands still is found out."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.fake_batch import FakeBatch
from tests.process import finish, logged_address, program, stop
from tests.process import process as started

Moment = Callable[[asyncio.subprocess.Process, str], Awaitable[None]]


def configure(batch: FakeBatch, folder: Path, **more: Any) -> Path:
    """A configuration of one account with one job, all of it polled every second."""
    batch.json("/jobs", {"value": [{"id": "a", "state": "active"}]})
    batch.json("/jobs/a/taskcounts", {"taskCounts": {"active": 1, "completed": 0}})
    batch.json("/jobs/a/jobpreparationandreleasetaskstatus", {"value": []})
    batch.json("/nodecounts", {"value": []})
    account = {
        "name": "myaccount",
        "endpoint": batch.endpoint,
        "auth": {"method": "shared_key", "key_env": "BATCH_KEY"},
        "requests_per_second": 500,
    }
    file = folder / "config.yaml"
    data = {"defaults": {"interval": "1s"}, "accounts": [account], **more}
    file.write_text(json.dumps(data))
    return file


async def ended_well(process: asyncio.subprocess.Process) -> None:
    errors = await stop(process)
    assert process.returncode == 0
    assert "Traceback" not in errors


async def test_during_a_poll(batch: FakeBatch, tmp_path: Path) -> None:
    file = configure(batch, tmp_path)
    asked = asyncio.Event()

    async def never(_: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.sleep(3600)
        return web.Response()

    batch.on("/jobs/a/taskcounts", never)
    async with program("run", f"--config.file={file}", "--web.listen-address=127.0.0.1:0") as it:
        await asyncio.wait_for(asked.wait(), 200)
        await ended_well(it)


async def test_during_a_scrape(batch: FakeBatch, tmp_path: Path) -> None:
    file = configure(batch, tmp_path)
    async with program("run", f"--config.file={file}", "--web.listen-address=127.0.0.1:0") as it:
        url = await logged_address(it)
        host, _, port = url.removeprefix("http://").removesuffix("/metrics").partition(":")
        # One client has asked and does not read, another has asked for half.
        _, first = await asyncio.open_connection(host, int(port))
        first.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        _, second = await asyncio.open_connection(host, int(port))
        second.write(b"GET /metrics HTTP/1.1\r\nHo")
        await asyncio.sleep(0.2)
        await ended_well(it)
        for each in (first, second):
            each.close()


async def test_during_a_reload(batch: FakeBatch, tmp_path: Path) -> None:
    file = configure(batch, tmp_path)
    async with program("run", f"--config.file={file}", "--web.listen-address=127.0.0.1:0") as it:
        await logged_address(it)
        for number in range(20):
            configure(batch, tmp_path, exclude_metrics=[["go_*"], ["python_*"]][number % 2][1:])
            it.send_signal(signal.SIGHUP)
        await ended_well(it)


async def test_while_state_is_written(batch: FakeBatch, tmp_path: Path) -> None:
    file = configure(batch, tmp_path, state_file="state.db")
    counts = ({"taskCounts": {"completed": n, "succeeded": n, "failed": 0}} for n in range(10**6))

    async def grown(_: web.Request) -> web.StreamResponse:
        return web.json_response(next(counts))

    batch.on("/jobs/a/taskcounts", grown)
    async with program("run", f"--config.file={file}", "--web.listen-address=127.0.0.1:0") as it:
        url = await logged_address(it)
        async with aiohttp.ClientSession() as session, asyncio.timeout(200):
            found = None
            while found is None or int(found[1]) < 2:
                await asyncio.sleep(0.1)
                text = await (await session.get(url)).text()
                found = re.search(r'job_tasks_completed_total\{.*result="success"\} (\d+)', text)
        await ended_well(it)
    saved = sqlite3.connect(tmp_path / "state.db")
    assert saved.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    (total,) = saved.execute(
        "SELECT total FROM counter WHERE name = 'azure_batch_job_tasks_completed_total'"
        " AND labels = '[\"success\"]'"
    ).fetchone()
    saved.close()
    assert total >= 2


@pytest.mark.full
async def test_an_event_loop_that_stands_still_is_not_healthy(
    batch: FakeBatch, tmp_path: Path
) -> None:
    file = configure(batch, tmp_path)
    async with program("run", f"--config.file={file}", "--web.listen-address=127.0.0.1:0") as it:
        url = (await logged_address(it)).replace("/metrics", "/-/healthy")
        assert (await finish("healthcheck", f"--url={url}"))[0] == 0
        it.send_signal(signal.SIGSTOP)
        status, _, errors = await finish("healthcheck", f"--url={url}")
        assert status == 1
        assert "timed out" in errors
        it.send_signal(signal.SIGCONT)
        assert (await finish("healthcheck", f"--url={url}"))[0] == 0
        await ended_well(it)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_at_once_after_it_listens(number: int, batch: FakeBatch, tmp_path: Path) -> None:
    file = configure(batch, tmp_path)
    async with program("run", f"--config.file={file}", "--web.listen-address=127.0.0.1:0") as it:
        await logged_address(it)
        errors = await stop(it, number)
        assert (it.returncode, "Traceback" in errors) == (0, False)


async def test_a_process_that_stands_still_ends_all_the_same() -> None:
    """Its event loop never comes to what a signal asks for."""
    code = """
import asyncio, logging, time
from exporter.service import process
async def main():
    process.LONGEST_END = 0.2
    process.stop_on_signals()
    print("ready", flush=True)
    while True:
        time.sleep(0.05)
asyncio.run(main())
"""
    async with started(sys.executable, "-c", code) as it:
        assert it.stdout is not None
        assert await it.stdout.readline() == b"ready\n"
        assert "did not end within 0.2 s of a signal" in await stop(it)
        assert it.returncode == 1
