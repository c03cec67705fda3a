"""`scrape`: what it writes, where, and what it shows meanwhile."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.cli import atomic_file
from exporter.config.problems import ConfigError
from exporter.simulator import SCENARIOS, Clock, Simulation, World, serve
from tests.process import check_metrics, finish, process
from tests.tools import find_tool

START = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
async def simulation() -> AsyncIterator[Simulation]:
    """An account of three jobs whose time stands still."""
    world = World(SCENARIOS["steady"], seed=2, jobs=3, nodes=3, start=START)
    async with serve(world, Clock(START, speed=0.0)) as served:
        yield served


@pytest.fixture
def flag(simulation: Simulation, tmp_path: Path) -> str:
    """--config.file for it."""
    account = {
        "name": "simulated",
        "endpoint": simulation.endpoint,
        "auth": {"method": "shared_key", "key_env": "KEY"},
        "requests_per_second": 1000,
    }
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"accounts": [account]}))
    return f"--config.file={file}"


async def test_the_file_is_one_that_node_exporter_can_take(
    simulation: Simulation, flag: str, tmp_path: Path, promtool: Path
) -> None:
    folder = tmp_path / "textfile"
    folder.mkdir()
    file = folder / "azure_batch.prom"
    status, output, errors = await finish(
        "scrape", flag, f"--output={file}", KEY=simulation.account_key
    )
    assert (status, output, errors) == (0, "", "")
    assert list(folder.iterdir()) == [file]  # nothing half-made is left beside it
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    text = file.read_bytes()
    assert await check_metrics(promtool, text) == (0, "")
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    assert any(line.startswith("azure_batch_job_tasks{") for line in lines)
    # No sample has a timestamp, and none has a name that node_exporter exposes itself.
    value = re.compile(r".*[}a-z] [-+0-9.eInfNa]+")
    assert all(value.fullmatch(line) for line in lines)
    assert not [line for line in lines if line.startswith(("process_", "python_"))]


async def test_node_exporter_shows_what_is_in_the_file(
    simulation: Simulation, flag: str, tmp_path: Path
) -> None:
    folder = tmp_path / "textfile"
    folder.mkdir()
    await finish("scrape", flag, f"--output={folder}/a.prom", KEY=simulation.account_key)
    arguments = (
        *("--web.listen-address=127.0.0.1:0", "--collector.disable-defaults"),
        *("--collector.textfile", f"--collector.textfile.directory={folder}"),
    )
    async with process(find_tool("prometheus-node-exporter"), *arguments) as node_exporter:
        assert node_exporter.stderr is not None
        async for line in node_exporter.stderr:
            match = re.search(r"[Ll]istening on.*?address=(127\.0\.0\.1:\d+)", line.decode())
            if match:
                break
        assert match is not None
        async with aiohttp.ClientSession() as session:
            text = await (await session.get(f"http://{match[1]}/metrics")).text()
    assert "node_textfile_scrape_error 0\n" in text
    written, taken = samples((folder / "a.prom").read_text()), samples(text)
    assert written
    assert written <= taken


def samples(text: str) -> set[tuple[str, frozenset[tuple[str, str]], float]]:
    """Name, labels and value of each sample of the service's jobs."""
    return {
        (sample.name, frozenset(sample.labels.items()), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("azure_batch_job_")
    }


async def test_with_a_state_file_each_run_shows_what_was_counted_since_the_run_before(
    tmp_path: Path,
) -> None:
    clock = Clock(START, speed=0.0)
    world = World(SCENARIOS["steady"], seed=2, jobs=3, nodes=3, start=START)
    async with serve(world, clock) as simulation:
        account = {
            "name": "simulated",
            "endpoint": simulation.endpoint,
            "auth": {"method": "shared_key", "key_env": "KEY"},
            "requests_per_second": 1000,
            "jobs": [{"id_regex": ".*", "group": "all"}],
        }
        file = tmp_path / "config.yaml"
        file.write_text(json.dumps({"accounts": [account], "state_file": "state.db"}))
        completed = []
        for _ in range(4):
            status, output, _ = await finish(
                "scrape", f"--config.file={file}", KEY=simulation.account_key
            )
            assert status == 0
            own = "azure_batch_job_tasks_completed_total{"
            found = [line.split()[-1] for line in output.splitlines() if line.startswith(own)]
            completed.append(sum(map(float, found)))
            clock.advance(60.0)
    assert completed == sorted(completed)
    assert completed[0] == 0 < completed[1]


async def test_an_account_that_fails_is_told_in_the_file_and_in_the_status(
    simulation: Simulation, flag: str, tmp_path: Path
) -> None:
    file = tmp_path / "out.prom"
    status, _, _ = await finish("scrape", flag, f"--output={file}", KEY="AAAA")
    assert status == 1
    assert 'azure_batch_up{account="simulated"} 0\n' in file.read_text()


async def test_openmetrics_ends_as_it_should(simulation: Simulation, flag: str) -> None:
    status, output, _ = await finish(
        "scrape", flag, "--format=openmetrics", KEY=simulation.account_key
    )
    assert status == 0
    assert output.endswith("\n# EOF\n")
    assert "# TYPE azure_batch_job_tasks_started counter\n" in output


async def test_a_place_where_no_file_can_be_is_told_before_anybody_is_asked(
    simulation: Simulation, flag: str, tmp_path: Path
) -> None:
    file = tmp_path / "nowhere" / "out.prom"
    status, _, errors = await finish("scrape", flag, f"--output={file}", KEY=simulation.account_key)
    assert status == 2
    there = file.parent
    assert errors == f"{file}: cannot be written: there is no folder {there}: make it\n"
    assert simulation.requests == {}


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder: name a file in it"):
        atomic_file.check_place(tmp_path)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "f"
    atomic_file.write(file, b"before")
    reader = file.open("rb")
    atomic_file.write(file, b"after")
    assert (reader.read(), file.read_bytes()) == (b"before", b"after")
    reader.close()
    scratch = tmp_path / f".f.{os.getpid()}.tmp"
    scratch.mkdir()  # what is in the way of the new one is none of the old one's business
    with pytest.raises(OSError):  # noqa: PT011 - which one is the system's affair
        atomic_file.write(file, b"never")
    assert file.read_bytes() == b"after"


LOG_OFTEN = """
import sys
from exporter.__main__ import main
from exporter.cli import scrape
scrape.PROGRESS_INTERVAL = 0.001
sys.exit(main(sys.argv[1:]))
"""


async def test_the_progress_of_a_long_scrape_is_logged(simulation: Simulation, flag: str) -> None:
    arguments = (sys.executable, "-c", LOG_OFTEN, "scrape", flag)
    async with process(*arguments, KEY=simulation.account_key) as started:
        output, errors = await started.communicate()
    assert started.returncode == 0
    assert b"still polling" not in output
    pattern = rb'msg="still polling" accounts=1 accounts_done=0 jobs=(\d) polls=\d+ polls_done=\d+'
    assert {b"3"} <= set(re.findall(pattern, errors))
