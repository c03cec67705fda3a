"""What systemd is told, over a real socket, by the real process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.service import systemd
from exporter.service.log_lines import JournalFormatter, LogfmtFormatter
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


async def news(listening: socket.socket) -> str:
    """The next message but signs of life."""
    while (message := await told(listening)) == systemd.ALIVE:
        pass
    return message


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
        while not messages[-1].startswith("READY=1\n"):
            messages.append(await told(notify_socket))
        assert messages[-1] == "READY=1\nERRNO=0\nSTATUS=The configuration was reloaded."
        await stop(process)
        while messages[-1] != "STOPPING=1":
            messages.append(await told(notify_socket))
        assert process.returncode == 0


async def test_a_refused_reload_is_seen_by_systemd(
    notify_socket: socket.socket, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    good = """\
accounts:
  - name: a
    endpoint: http://127.0.0.1:1
    auth: {method: shared_key, key_env: BATCH_KEY}
    jobs: [{id_regex: .*}]
"""
    file.write_text(good)

    async def outcome() -> str:
        """The message to systemd at the end of a reload."""
        process.send_signal(signal.SIGHUP)
        assert (await news(notify_socket)).startswith("RELOADING=1\n")
        return await news(notify_socket)

    flags = (f"--config.file={file}", "--web.listen-address=127.0.0.1:0")
    async with (
        program("run", *flags, NOTIFY_SOCKET=str(tmp_path / "notify")) as process,
        asyncio.timeout(200),
    ):
        assert await news(notify_socket) == "READY=1"
        file.write_text(good + "    max_job: 1\n    max_node: 1\n")
        refused = await outcome()
        assert refused.splitlines()[:2] == ["READY=1", "ERRNO=22"]
        assert refused.splitlines()[2].startswith(
            "STATUS=The configuration was refused, the old one is in force:"
            f" {file}:6: accounts[0].max_job: unknown key"
        )
        assert refused.endswith(" (and 1 more)")
        file.write_text(good)
        assert (await outcome()).splitlines()[1] == "ERRNO=0"


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


@pytest.mark.parametrize("format_", ["logfmt", "json"])
@pytest.mark.parametrize("is_journal", [True, False])
async def test_lines_have_priorities_where_standard_error_is_the_journal(
    format_: str, is_journal: bool
) -> None:
    reading, writing = os.pipe()
    status = os.fstat(writing)
    stream = f"{status.st_dev}:{status.st_ino if is_journal else 1}"
    flags = ("demo", "--web.listen-address=127.0.0.1:0", f"--log.format={format_}")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "exporter", *flags),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=writing,
        env={**os.environ, "JOURNAL_STREAM": stream},
    )
    os.close(writing)
    with os.fdopen(reading) as lines:
        line = await asyncio.to_thread(lines.readline)
        process.kill()
        await process.wait()
    assert line.startswith("<6>" if is_journal else ("{" if format_ == "json" else "time="))


def test_each_level_has_its_priority() -> None:
    formatter = JournalFormatter(LogfmtFormatter())
    priorities = [
        formatter.format(logging.LogRecord("a", level, "", 1, "x\ny", (), None))
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, 50, 25)
    ]
    assert [line[:8] for line in priorities] == [f"<{each}>time=" for each in (7, 6, 4, 3, 2, 6)]
    assert not any("\n" in line for line in priorities)
