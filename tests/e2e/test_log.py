"""A log that nobody reads holds nobody: the real process, its standard error a pipe."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import aiohttp

from exporter.service.log_lines import LogfmtFormatter
from exporter.service.log_writer import BackgroundHandler
from tests.conftest import KEY
from tests.process import process, program

CONFIG = """\
accounts:
  - name: acc
    endpoint: https://acc.example
    auth: {method: shared_key, key_env: BATCH_KEY}
"""
MISTAKES = "".join(f"mistake_{number}: 1\n" for number in range(500))
"""Of a configuration with these, a reload logs five hundred lines."""


async def test_while_nobody_reads_the_log_all_else_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    arguments = (f"--config.file={file}", "--web.listen-address=127.0.0.1:0")
    async with program("run", *arguments) as exporter, aiohttp.ClientSession() as session:
        assert exporter.stderr is not None
        listening = (await exporter.stderr.readline()).decode()
        url = listening.partition("address=")[2].partition(" ")[0]
        file.write_text(CONFIG + MISTAKES)
        dropped = 0.0
        async with asyncio.timeout(200):
            while not dropped:
                exporter.send_signal(signal.SIGHUP)
                async with session.get(url) as answer:
                    lines = (await answer.text()).splitlines()
                name = "azure_batch_exporter_log_lines_dropped_total "
                dropped = next(
                    float(line.removeprefix(name)) for line in lines if line.startswith(name)
                )
            logged = b""
            while b"log lines were dropped: nobody read this log for a while" not in logged:
                logged = await exporter.stderr.readline()
            for _ in range(10):  # nobody reads again
                exporter.send_signal(signal.SIGHUP)
                async with session.get(url):
                    pass
            exporter.send_signal(signal.SIGTERM)
            while exporter.returncode is None:  # noqa: ASYNC110 - its output is a pipe that nobody reads
                await asyncio.sleep(0.1)
        assert exporter.returncode == 0


async def test_a_process_whose_standard_error_is_closed_runs(tmp_path: Path) -> None:
    file, socket = tmp_path / "config.yaml", tmp_path / "socket"
    file.write_text(CONFIG)
    arguments = ("run", f"--config.file={file}", f"--web.listen-address=unix:{socket}")
    script = 'exec "$0" -m exporter "$@" 2>&-'
    command = ("sh", "-c", script, sys.executable, *arguments)
    async with process(*command, BATCH_KEY=KEY) as exporter:
        async with asyncio.timeout(200):
            while not socket.exists():
                assert exporter.returncode is None
                await asyncio.sleep(0.05)
        exporter.terminate()
        assert await exporter.wait() == 0


def test_a_line_that_cannot_be_formatted_is_told_in_the_log_itself() -> None:
    reader, writer = os.pipe()
    handler = BackgroundHandler(writer)
    handler.setFormatter(LogfmtFormatter())
    handler.handle(logging.LogRecord("a", logging.INFO, "f", 1, "%d", ("text",), None))
    handler.flush()
    line = os.read(reader, 1000).decode()
    assert 'level=WARNING source=exporter.service.log_writer msg="a line of a cannot be' in line
    assert handler.dropped == 0
