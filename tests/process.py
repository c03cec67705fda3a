"""Processes that tests start, and that end with them."""

from __future__ import annotations

import asyncio
import os
import random
import re
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from ssl import SSLContext

import aiohttp

from tests.conftest import KEY


@asynccontextmanager
async def process(
    *command: str | Path, pass_fds: Iterable[int] = (), **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with both outputs as pipes; it is killed at the end where it still runs."""
    started = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
        pass_fds=tuple(pass_fds),
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


@asynccontextmanager
async def program(*arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """azure-batch-exporter with these arguments; BATCH_KEY holds the key of test accounts."""
    environment = {"BATCH_KEY": KEY, **environment}
    async with process(sys.executable, "-m", "exporter", *arguments, **environment) as started:
        yield started


async def finish(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a run to the end."""
    async with program(*arguments, **environment) as started:
        output, errors = await asyncio.wait_for(started.communicate(), 200)
        assert started.returncode is not None
        return started.returncode, output.decode(), errors.decode()


async def logged_address(started: asyncio.subprocess.Process) -> str:
    """The URL of the metrics, from the log of a program that starts to listen."""
    assert started.stderr is not None
    async for line in started.stderr:
        if match := re.search(r'address(?:="?|": ")(https?://[^"\s]+)', line.decode()):
            return match[1]
    raise AssertionError("the program ended without listening")


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, for programs that cannot be told to take any.

    They are below those that Linux chooses of itself: of these another test, or whoever connects
    to one, could have it before the program does.
    """
    ports: set[int] = set()
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.add(port)
    return list(ports)


async def until_ready(url: str, *, ssl: SSLContext | bool = True, login: str = "") -> None:
    """Wait until an exporter, by the URL of its metrics, has polled each account once."""
    ready = url.replace("/metrics", "/-/ready")
    headers = {"Authorization": login} if login else {}
    async with aiohttp.ClientSession(headers=headers) as session:
        while (await session.get(ready, ssl=ssl)).status != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # another process: there is no event to wait for


async def stop(started: asyncio.subprocess.Process, number: int = signal.SIGTERM) -> str:
    """Ask a process to end; gives the rest of its standard error."""
    started.send_signal(number)
    _, errors = await asyncio.wait_for(started.communicate(), 200)
    return errors.decode()


def limit_files(started: asyncio.subprocess.Process, size: int) -> None:
    """No file of the process may become larger."""
    _, hard = resource.prlimit(started.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(started.pid, resource.RLIMIT_FSIZE, (size, hard))


async def check_metrics(promtool: Path, exposition: bytes) -> tuple[int, str]:
    """Exit status and output of `promtool check metrics`."""
    checker = await asyncio.create_subprocess_exec(
        promtool,
        "check",
        "metrics",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await checker.communicate(exposition)
    assert checker.returncode is not None
    return checker.returncode, output.decode()
