"""docs/tour.md: its commands are run in turn, and show what it says they show."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.process import process, stop

TOUR = Path(__file__).parent.parent.parent / "docs" / "tour.md"

SERVERS = ("demo", "simulate", "run")
"""Commands that go on until they are stopped: when the next one begins."""


@dataclass(frozen=True)
class Step:
    """Commands, and a pattern for each line that they are said to show."""

    commands: str
    shows: tuple[str, ...]

    @property
    def server(self) -> str | None:
        """The command that goes on, where this is one."""
        found = re.match(r"azure-batch-exporter (\w+)", self.commands)
        return found[1] if found and found[1] in SERVERS else None


def steps(text: str) -> Iterator[Step]:
    """The page's blocks: one of commands, and the one without a language that follows, if any."""
    blocks = re.findall(r"^```(sh)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for number, (language, commands) in enumerate(blocks):
        if language:
            is_followed = number + 1 < len(blocks) and not blocks[number + 1][0]
            shown = blocks[number + 1][1] if is_followed else ""
            patterns = (re.escape(line.strip()) for line in shown.splitlines())
            yield Step(commands, tuple(pattern.replace("…", ".*") for pattern in patterns))


def free_ports(count: int) -> list[int]:
    """Ports that nobody has."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [each.getsockname()[1] for each in sockets]


async def test_the_commands_of_the_tour_show_what_it_says(tmp_path: Path) -> None:
    exporter, simulator = free_ports(2)
    text = TOUR.read_text().replace("10225", str(exporter)).replace("10226", str(simulator))
    bash = shutil.which("bash")
    assert bash is not None, "make needs it, too"
    (tmp_path / "azure-batch-exporter").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m exporter "$@"\n'
    )
    (tmp_path / "azure-batch-exporter").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    before = f"cd {tmp_path}\n"
    tried = list(steps(text))
    assert len(tried) > 10
    async with AsyncExitStack() as stack, asyncio.timeout(240):
        running: asyncio.subprocess.Process | None = None
        for step in tried:
            if step.server is None:
                await shown(bash, before, step, environment)
                if step.commands.startswith("export"):
                    before += step.commands.partition("\n")[0] + "\n"
                continue
            if running is not None:
                await stop(running)
                assert running.returncode == 0
            command = step.commands.strip()
            if step.server == "run":
                command += f" --web.listen-address=:{exporter}"
            elif step.server == "demo":
                command += f" --web.listen-address=127.0.0.1:{exporter}"
            running = await stack.enter_async_context(
                process(bash, "-c", f"{before}exec {command}", **environment)
            )
            await listening(simulator if step.server == "simulate" else exporter)
        assert running is not None
        await stop(running)


async def shown(bash: str, before: str, step: Step, environment: dict[str, str]) -> None:
    """Run a step's commands until they show what they should: what is polled comes in time."""
    found, patience = "", asyncio.get_running_loop().time() + 20
    while asyncio.get_running_loop().time() < patience:
        async with process(bash, "-c", before + step.commands, **environment) as ran:
            output, errors = await ran.communicate()
        found = (output + errors).decode()
        if all(re.search(pattern, found) for pattern in step.shows):
            return
        await asyncio.sleep(0.3)  # another process: there is no event to wait for
    raise AssertionError(f"{step.commands} does not show {step.shows} but\n{found[-2000:]}")


async def listening(port: int) -> None:
    """Wait until somebody listens there."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
