"""Commands that pages show are run: in turn, by a shell, on what the page takes for granted."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.pages import ROOT, blocks
from tests.process import free_ports, process, stop
from tests.tools import find_command, find_tool, missing

SERVERS = re.compile(r"(?:azure-batch-exporter|make) (demo|simulate|run)\b")
"""Commands that go on until they are stopped: when the next one begins."""

PORTS = ("10225", "10226", "9090", "9093")
"""Those that pages name: of the exporter, the simulated account, Prometheus and Alertmanager."""

NOT_RUN = {
    ("README.md", "make test"): "this is what runs here",
    (
        "deploy/prometheus/README.md",
        "promtool test rules tests/*.yaml",
    ): "tests/test_rules.py runs it, with both ends of the range of versions",
}
"""Commands that could be run, and why they are not."""

PATIENCE = 60.0
"""Seconds until commands show what they should: what is polled comes in time."""


@dataclass(frozen=True)
class Step:
    """Commands, and a pattern for each line that they are said to show."""

    commands: str
    shows: tuple[str, ...]

    @property
    def server(self) -> str | None:
        """The command that goes on, where this is one."""
        found = SERVERS.match(self.commands)
        return found[1] if found else None


@dataclass
class Place:
    """Where a page's commands are run.

    `ports`: those that they get, by those that the page names. `before`: what each is begun with.
    """

    folder: Path
    ports: Mapping[str, int]
    environment: dict[str, str]
    before: str = field(init=False)

    def __post_init__(self) -> None:
        self.before = f"cd {shlex.quote(str(self.folder))}\n"

    def here(self, text: str) -> str:
        """A text of the page with the ports that are free here."""
        return re.sub("|".join(PORTS), lambda found: str(self.ports[found[0]]), text)

    def shell(self, commands: str) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
        """A shell that runs commands."""
        bash = find_command("bash")
        return process(bash, "-c", self.before + self.here(commands), **self.environment)


Stage = Callable[[Place], AbstractAsyncContextManager[None]]
"""What a page takes for granted, for as long as its commands are run."""


def steps(page: str) -> Iterator[Step]:
    """The page's commands, each with what the block without a language that follows says of it."""
    found = [block for block in blocks(page) if block.language in ("sh", "")]
    for number, block in enumerate(found):
        is_run = block.needs is None and (page, block.text.strip()) not in NOT_RUN
        if block.is_commands and is_run:
            following = found[number + 1 : number + 2]
            shown = "" if not following or following[0].is_commands else following[0].text
            patterns = (re.escape(line.strip()) for line in shown.splitlines())
            yield Step(block.text, tuple(pattern.replace("…", ".*") for pattern in patterns))


async def run_page(page: str, folder: Path) -> None:
    """Run a page's commands, those apart that need what is not here."""
    programs, work = folder / "bin", folder / "work"
    programs.mkdir()
    work.mkdir()
    (programs / "azure-batch-exporter").write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m exporter "$@"\n'
    )
    (programs / "azure-batch-exporter").chmod(0o755)
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    path = f"{programs}:{os.environ['PATH']}"
    place = Place(work, ports, {"PATH": path})
    for program in ("curl", "jq", "make"):
        if any(program in step.commands for step in steps(page)):
            find_command(program)
    async with STAGES[page](place), AsyncExitStack() as stack:
        running: asyncio.subprocess.Process | None = None
        for step in steps(page):
            if step.server is None:
                await shown(place, step)
                if step.commands.startswith("export"):
                    place.before += place.here(step.commands.partition("\n")[0]) + "\n"
                continue
            if running is not None:
                await ended(running)
            running = await stack.enter_async_context(serving(place, step))
        if running is not None:
            await ended(running)


@asynccontextmanager
async def serving(place: Place, step: Step) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command that goes on, and listens."""
    port = "10226" if step.server == "simulate" else "10225"
    flags = {
        "demo": f"--web.listen-address=127.0.0.1:{port}",
        "run": f"--web.listen-address=:{port}",
        "simulate": "",
    }[step.server or ""]
    command = step.commands.strip()
    command += f" ARGS={flags}" if command.startswith("make ") else f" {flags}"
    async with place.shell(f"exec {command}") as running:
        try:
            await listening(place.ports[port], running)
            yield running
        finally:
            if running.returncode is None:  # make would leave what it runs behind if it were killed
                await stop(running)


async def ended(running: asyncio.subprocess.Process) -> None:
    """End a command that goes on."""
    assert running.returncode is None, "it ended by itself"
    await stop(running)
    assert running.returncode in (0, -signal.SIGTERM)  # make ends by the signal


async def shown(place: Place, step: Step, patience: float = PATIENCE) -> None:
    """Run a step's commands until they show what they should, or else until they succeed."""
    until = asyncio.get_running_loop().time() + patience
    while True:
        async with place.shell(step.commands) as ran:
            output, errors = await ran.communicate()
        found = (output + errors).decode()
        patterns = map(place.here, step.shows)
        is_shown = all(re.search(pattern, found) for pattern in patterns)
        if is_shown and (step.shows or ran.returncode == 0):
            return
        if asyncio.get_running_loop().time() > until:
            expected = step.shows or "exit status 0"
            raise AssertionError(f"{step.commands} shows not {expected} but\n{found[-2000:]}")
        await asyncio.sleep(0.3)  # another process: there is no event to wait for


async def listening(port: int, who: asyncio.subprocess.Process) -> None:
    """Wait until somebody listens there."""
    while who.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    raise AssertionError(f"it ended with {who.returncode}: {(await who.communicate())[1].decode()}")


@asynccontextmanager
async def _an_empty_folder(place: Place) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _the_checkout(place: Place) -> AsyncIterator[None]:
    place.before = f"cd {shlex.quote(str(ROOT))}\n"
    async with place.shell("make --question .venv/.installed") as made:
        await made.communicate()
    if made.returncode:
        missing(".venv is not what the lock files say: `make test` installs it")
    yield


@asynccontextmanager
async def _a_demo(place: Place) -> AsyncIterator[None]:
    async with serving(place, Step("azure-batch-exporter demo", ())):
        yield


@asynccontextmanager
async def _an_account(place: Place) -> AsyncIterator[None]:
    """A simulated one, and a configuration of it."""
    command = "azure-batch-exporter simulate --listen-address=127.0.0.1:10226"
    async with place.shell(f"exec {command}") as account:
        assert account.stdout is not None
        async for line in account.stdout:
            if found := re.match(rb"key: (\S+)", line):
                place.environment["BATCH_KEY"] = found[1].decode()
                break
        await listening(place.ports["10226"], account)
        (place.folder / "config.yaml").write_text(
            place.here("""
accounts:
  - name: simulated
    endpoint: http://127.0.0.1:10226
    auth: {method: shared_key, key_env: BATCH_KEY}
    requests_per_second: 200
""")
        )
        yield
        await stop(account)


@asynccontextmanager
async def _prometheus(place: Place) -> AsyncIterator[None]:
    """Prometheus with the shipped rules beside its configuration, and Alertmanager."""
    shutil.copytree(ROOT / "deploy" / "prometheus", place.folder, dirs_exist_ok=True)
    (place.folder / "prometheus.yml").write_text("rule_files: [recording-rules.yaml, alerts.yaml]")
    programs = find_tool("prometheus").parent
    place.environment["PATH"] = f"{programs}:{place.environment['PATH']}"
    async with AsyncExitStack() as stack:
        for port, command in {
            "9090": "prometheus --config.file=prometheus.yml --web.enable-lifecycle"
            " --web.listen-address=127.0.0.1:9090",
            "9093": f"alertmanager --config.file={place.folder}/alertmanager.example.yaml"
            f" --storage.path={place.folder}/alerts --cluster.listen-address="
            " --web.listen-address=127.0.0.1:9093",
        }.items():
            server = await stack.enter_async_context(place.shell(f"exec {command}"))
            await listening(place.ports[port], server)
        yield


STAGES: Mapping[str, Stage] = {
    "README.md": _the_checkout,
    "docs/tour.md": _an_empty_folder,
    "docs/page.md": _a_demo,
    "docs/check.md": _an_account,
    "docs/scaling.md": _an_account,
    "docs/sizing.md": _an_account,
    "deploy/prometheus/README.md": _prometheus,
}
"""The pages whose commands are run, each with what it takes for granted."""
