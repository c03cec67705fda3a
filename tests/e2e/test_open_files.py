"""With few open files neither polls nor clients take them all: the real process, its limit 64."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from exporter.config import Account
from exporter.config.problems import ConfigError
from exporter.service import open_files
from tests.conftest import KEY
from tests.process import logged_address, process

ACCOUNT = """\
  - name: account-{number}
    endpoint: {endpoint}
    auth: {{method: shared_key, key_env: BATCH_KEY}}
    pool_nodes: false
    requests_per_second: 1000
"""


def with_limit(files: int, *arguments: str) -> tuple[str, ...]:
    """The command that starts the exporter with a limit of open files."""
    script = f'ulimit -n {files}; exec "$0" -m exporter "$@"'
    return ("sh", "-c", script, sys.executable, *arguments)


async def test_polls_that_hang_leave_files_to_clients_and_clients_to_polls(tmp_path: Path) -> None:
    hanging, is_over = 0, asyncio.Event()
    jobs = [{"id": f"job-{number}", "state": "active"} for number in range(40)]

    async def answer(request: web.Request) -> web.Response:
        nonlocal hanging
        if request.path == "/jobs":
            return web.json_response({"value": jobs})
        hanging += 1
        await is_over.wait()
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as batch:
        accounts = (ACCOUNT.format(number=n, endpoint=batch.make_url("")) for n in range(3))
        file = tmp_path / "config.yaml"
        file.write_text(f"accounts:\n{''.join(accounts)}")
        arguments = ("run", f"--config.file={file}", "--web.listen-address=127.0.0.1:0")
        async with process(*with_limit(64, *arguments), BATCH_KEY=KEY) as exporter:
            url = await logged_address(exporter)
            async with asyncio.timeout(200):
                while hanging < 18:  # noqa: ASYNC110 - six for each account: all that it may have
                    await asyncio.sleep(0.05)
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            async with aiohttp.ClientSession(connector=connector) as session:
                answers = await asyncio.gather(*(_text_at(session, url) for _ in range(10)))
            assert all("azure_batch_exporter_build_info" in text for text in answers)
            exporter.terminate()
            assert exporter.stderr is not None
            logged = (await exporter.stderr.read()).decode()
        is_over.set()
        assert "Too many open files" not in logged
        assert hanging == 18


async def _text_at(session: aiohttp.ClientSession, url: str) -> str:
    async with asyncio.timeout(200), session.get(url) as answer:
        return await answer.text()


async def test_a_limit_is_warned_of_at_start_with_what_it_means(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert open_files.divide(64, 2000) == open_files.OpenFiles(polls=20, clients=20)
    accounts = [Account(name=f"a{n}", endpoint="https://a.b", max_concurrency=16) for n in range(3)]
    limited = open_files.limited(accounts, 20)
    assert [account.max_concurrency for account in limited] == [6, 6, 6]
    cure = "raise the limit of open files (ulimit -n, LimitNOFILE= of systemd)"
    assert caplog.messages == [
        f"64 open files leave 20 connections to clients: {cure}",
        f"open files leave 6 connections to each account: {cure}",
    ]
    with pytest.raises(ConfigError, match="leave 2 connections to 3 accounts: raise the limit"):
        open_files.limited(accounts, 2)


def test_an_ordinary_limit_is_no_concern(caplog: pytest.LogCaptureFixture) -> None:
    assert open_files.divide(1_048_576, 2000).clients == 2000
    accounts = [Account(name="a", endpoint="https://a.b")]
    assert open_files.limited(accounts, 2000) == accounts
    assert caplog.messages == []
