"""What systemd is told, over a real socket, by the real process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.service import systemd
from tests.process import logged_address, program, stop


@pytest.fixture
def notify_socket(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket on which systemd would listen."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(tmp_path / "notify"))
    listening.settimeout(200)
    yield listening
    listening.close()


async def told(listening: socket.socket) -> str:
    return (await asyncio.to_thread(listening.recv, 1000)).decode()


async def test_the_process_tells_when_it_is_ready_alive_reloading_and_stopping(
    notify_socket: socket.socket, tmp_path: Path
) -> None:
    async with (
        program(
            "demo",
            "--web.listen-address=127.0.0.1:0",
            NOTIFY_SOCKET=str(tmp_path / "notify"),
            WATCHDOG_USEC="400000",
        ) as process,
        asyncio.timeout(200),
    ):
        await logged_address(process)
        assert await told(notify_socket) == "READY=1"
        assert await told(notify_socket) == "WATCHDOG=1"
        process.send_signal(signal.SIGHUP)
        messages = [await told(notify_socket)]
        while not messages[-1].startswith("RELOADING=1"):
            messages.append(await told(notify_socket))
        assert "\nMONOTONIC_USEC=" in messages[-1]
        while messages[-1] != "READY=1":
            messages.append(await told(notify_socket))
        await stop(process)
        while messages[-1] != "STOPPING=1":
            messages.append(await told(notify_socket))
        assert process.returncode == 0


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),  # it is meant for another
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_signs_of_life_come_twice_as_often_as_needed(
    environment: dict[str, str], interval: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert systemd.watchdog_interval() == interval


def test_an_abstract_address_is_understood_and_nobody_need_listen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(f"\0exporter-test-{os.getpid()}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@exporter-test-{os.getpid()}")
    systemd.notify(systemd.ALIVE)
    assert listening.recv(100) == b"WATCHDOG=1"
    listening.close()
    monkeypatch.setenv("NOTIFY_SOCKET", "/nobody/here")
    systemd.notify(systemd.READY)
    monkeypatch.delenv("NOTIFY_SOCKET")
    systemd.notify(systemd.READY)
