"""Unix sockets, and sockets that systemd opens, served by real processes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from exporter.cli import healthcheck
from tests.process import finish, process, program, stop


async def status(path: Path, url: str = "http://localhost/-/healthy") -> int:
    """Status of an answer on a Unix socket."""
    connector = aiohttp.UnixConnector(str(path))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(url) as response,
    ):
        await response.read()
        return response.status


async def listens(started: asyncio.subprocess.Process) -> str:
    """The line of the log that says so."""
    assert started.stderr is not None
    async for line in started.stderr:
        if b"msg=listening" in line:
            return line.decode()
    raise AssertionError("the program ended without listening")


async def test_a_unix_socket_is_for_user_and_group_and_goes_with_the_process(
    tmp_path: Path,
) -> None:
    path = tmp_path / "exporter.sock"
    addresses = (f"--web.listen-address=unix:{path}", "--web.listen-address=127.0.0.1:0")
    async with program("demo", *addresses) as started, asyncio.timeout(200):
        assert f"address=unix:{path} " in await listens(started)
        assert "address=http://127.0.0.1:" in await listens(started)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert await status(path) == 200
        assert await status(path, "http://localhost/metrics") == 200
        url = f"unix:{path}"
        assert await asyncio.to_thread(healthcheck.ask, url) == (True, "Healthy.")
        await stop(started)
        assert started.returncode == 0
    assert not path.exists()
    assert not (await asyncio.to_thread(healthcheck.ask, url))[0]


async def test_a_socket_that_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "exporter.sock"
    async with asyncio.timeout(200):
        async with program("demo", f"--web.listen-address=unix:{path}") as killed:
            await listens(killed)
            killed.kill()
            await killed.wait()
        assert path.exists()
        async with program("demo", f"--web.listen-address=unix:{path}") as started:
            await listens(started)
            assert await status(path) == 200
            await stop(started)


async def test_a_socket_on_which_somebody_listens_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "exporter.sock"
    async with (
        program("demo", f"--web.listen-address=unix:{path}") as started,
        asyncio.timeout(200),
    ):
        await listens(started)
        code, _, errors = await finish("demo", f"--web.listen-address=unix:{path}")
        assert code == 1
        text = "something is there: remove it, or name another path"
        assert f"cannot listen on unix:{path}: {text}" in errors
        assert await status(path) == 200
        # A process that ends does not remove what another has put in its place.
        path.unlink()
        path.write_text("somebody else's")
        await stop(started)
    assert path.read_text() == "somebody else's"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file", "something is there: remove it, or name another path"),
        ("nowhere/x.sock", "no such file or directory"),
        ("x" * 200, "path too long"),
    ],
)
async def test_a_path_that_cannot_be_a_socket_is_told(
    tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "file").write_text("kept")
    path = tmp_path / name
    code, _, errors = await finish("demo", f"--web.listen-address=unix:{path}")
    assert code == 1
    assert f"cannot listen on unix:{path}: " in errors
    assert reason in errors
    assert (tmp_path / "file").read_text() == "kept"


LAUNCH = """
import os, sys
numbers = sys.argv[1].split()
for at, number in enumerate(numbers, 3):
    os.dup2(int(number), at)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(numbers)))
os.execv(sys.executable, [sys.executable, "-m", "exporter", *sys.argv[2:]])
"""


@asynccontextmanager
async def activated(*sockets: socket.socket) -> AsyncIterator[asyncio.subprocess.Process]:
    """The demo with these sockets, as systemd hands them over: they begin at 3."""
    numbers = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in sockets]
    command = (sys.executable, "-c", LAUNCH, " ".join(map(str, numbers)))
    async with process(*command, "demo", "--web.systemd-socket", pass_fds=numbers) as started:
        for number in numbers:
            os.close(number)
        yield started


async def test_sockets_that_systemd_opened_are_served_and_stay_when_the_process_ends(
    tmp_path: Path,
) -> None:
    path = tmp_path / "exporter.sock"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(str(path))
        unix.listen()
        url = f"http://127.0.0.1:{tcp.getsockname()[1]}"
        async with asyncio.timeout(200):
            # Whoever connects before the exporter runs is served once it does.
            early = asyncio.create_task(status(path))
            for _ in range(2):
                async with activated(tcp, unix) as started, aiohttp.ClientSession() as session:
                    assert f"{url}/metrics" in await listens(started)
                    assert f"address=unix:{path} " in await listens(started)
                    assert await early == 200
                    assert await status(path) == 200
                    async with session.get(f"{url}/-/healthy") as response:
                        assert response.status == 200
                    await stop(started)
                    assert started.returncode == 0
        assert path.is_socket()


async def test_without_sockets_of_systemd_nothing_starts() -> None:
    flag = "--web.systemd-socket"
    code, _, errors = await finish("demo", flag)
    assert (code, errors.splitlines()[-1]) == (
        2,
        f"{flag}: systemd has handed over no socket: start this service by its .socket unit",
    )
    for number in ("1", str(os.getpid())):  # meant for another process
        code, _, errors = await finish("demo", flag, LISTEN_PID=number, LISTEN_FDS="1")
        assert (code, "has handed over no socket" in errors) == (2, True)
    code, _, errors = await finish("demo", flag, "--web.listen-address=:0")
    assert (code, "give only one of --web.systemd-socket" in errors) == (2, True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        async with activated(datagrams) as started:
            _, output = await started.communicate()
            assert started.returncode == 2
            assert b"file descriptor 3 is no stream socket that listens" in output
