"""Each command imports what it needs and no more: real processes write down what they imported."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.conftest import KEY
from tests.fake_batch import FakeBatch
from tests.process import logged_address, process, stop, until_ready

LIST_MODULES = """
import sys
from exporter.__main__ import main
try:
    status = main(sys.argv[2:])
finally:
    with open(sys.argv[1], "w") as file:
        file.write("\\n".join(sys.modules))
sys.exit(status)
"""
"""Runs the program, and writes the names of all modules to the file that is named first."""

HEAVY = frozenset(
    {"aiohttp", "asyncio", "azure", "jinja2", "msgspec", "prometheus_client", "pydantic", "yaml"}
)

LIGHT = ["cli.parsing"]
OF_HELP = ["cli.flags", "service.logs"]


def command(file: Path, *arguments: str) -> tuple[str | Path, ...]:
    return (sys.executable, "-c", LIST_MODULES, file, *arguments)


async def imported(file: Path, *arguments: str) -> tuple[int | None, set[str]]:
    """Exit status and the imported modules."""
    async with process(*command(file, *arguments)) as started:
        await started.communicate()
    return started.returncode, set(file.read_text().splitlines())


def heavy(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} & HEAVY


def own(modules: set[str]) -> list[str]:
    """The exporter's modules, without packages and what each command has."""
    names = (name.removeprefix("exporter.") for name in modules if name.startswith("exporter."))
    return sorted(set(names) - {"__main__", "batch", "cli", "service"})


@pytest.fixture
def config_file(batch: FakeBatch, tmp_path: Path) -> Path:
    """The configuration of an account without jobs."""
    batch.json("/jobs", {"value": []})
    batch.json("/nodecounts", {"value": []})
    account = {
        "name": "myaccount",
        "endpoint": batch.endpoint,
        "auth": {"method": "shared_key", "key_env": "BATCH_KEY"},
    }
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"defaults": {"interval": "1s"}, "accounts": [account]}))
    return file


@pytest.mark.parametrize(
    ("arguments", "modules"),
    [
        (["--version"], []),
        (["--help"], []),
        (["run", "--help"], [*OF_HELP, "cli.run"]),
        (["check", "--help"], [*OF_HELP, "cli.check"]),
        (["scrape", "--help"], [*OF_HELP, "cli.scrape"]),
        (["healthcheck", "--help"], [*OF_HELP, "cli.healthcheck"]),
        (["demo", "--help"], [*OF_HELP, "cli.demo", "cli.simulate"]),
        (["simulate", "--help"], [*OF_HELP, "cli.simulate"]),
    ],
    ids=" ".join,
)
async def test_help_imports_no_more_than_the_module_of_the_command(
    arguments: list[str], modules: list[str], tmp_path: Path
) -> None:
    status, found = await imported(tmp_path / "modules", *arguments)
    assert status == 0
    assert heavy(found) == set()
    assert own(found) == sorted([*LIGHT, *modules])


async def test_healthcheck_imports_nothing_of_what_serves(batch: FakeBatch, tmp_path: Path) -> None:
    batch.json("/-/healthy", "Healthy.")
    url = f"--url={batch.endpoint}/-/healthy"
    status, found = await imported(tmp_path / "modules", "healthcheck", url)
    assert status == 0
    assert heavy(found) == set()
    assert own(found) == sorted([*LIGHT, *OF_HELP, "cli.healthcheck"])


@pytest.mark.parametrize("name", ["check", "scrape"])
async def test_a_command_that_polls_once_imports_neither_the_pages_nor_the_simulator(
    name: str, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_KEY", KEY)
    flag = f"--config.file={config_file}"
    status, found = await imported(tmp_path / "modules", name, flag)
    assert status == 0
    assert "pydantic" in found
    assert "jinja2" not in found
    assert not any(each.startswith("exporter.simulator") for each in found)


async def test_run_does_not_import_the_simulator(config_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "modules"
    flags = (f"--config.file={config_file}", "--web.listen-address=127.0.0.1:0")
    async with process(*command(file, "run", *flags), BATCH_KEY=KEY) as started:
        async with asyncio.timeout(200):
            await until_ready(await logged_address(started))
        await stop(started)
    assert started.returncode == 0
    found = set(file.read_text().splitlines())
    assert "exporter.web.app" in found
    assert not any(each.startswith("exporter.simulator") for each in found)
