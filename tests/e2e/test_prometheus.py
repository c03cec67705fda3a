"""A real Prometheus scrapes the real program, which polls a simulated account."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web

from exporter.simulator import SCENARIOS, Clock, World, serve
from tests.fake_batch import FakeBatch
from tests.process import (
    check_metrics,
    free_ports,
    logged_address,
    process,
    program,
    until_ready,
)
from tests.tools import find_tool
from tests.truth import Series, Truth

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
STATES = ["active", "disabling", "disabled", "enabling", "terminating", "completed", "deleting"]
COLLECT = ["task_counts", "preparation_release", "tasks"]
HISTOGRAMS = "task|preparation|release"


@pytest.fixture
def prometheus() -> Path:
    """The server's program."""
    return find_tool("prometheus")


@asynccontextmanager
async def as_text(url: str) -> AsyncIterator[str]:
    """An address that gives what `url` gives to a scraper that knows only text 0.0.4.

    Prometheus 2.42 always asks for OpenMetrics first.
    """
    async with aiohttp.ClientSession(headers={"Accept": "text/plain;version=0.0.4"}) as session:

        async def relay(_: web.Request) -> web.Response:
            async with session.get(url) as answer:
                kind = answer.headers["Content-Type"]
                assert kind.startswith("text/plain; version=0.0.4")
                return web.Response(body=await answer.read(), headers={"Content-Type": kind})

        app = web.Application()
        app.router.add_get("/metrics", relay)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
        await runner.cleanup()


@asynccontextmanager
async def prometheus_scraping(
    program: Path,
    folder: Path,
    targets: dict[str, str],
    interval: str = "1s",
    rules: Sequence[Path] = (),
) -> AsyncIterator[aiohttp.ClientSession]:
    """Prometheus with a scrape job for each target, all of them up; a client of its HTTP API."""
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [target]}]}
        for name, target in targets.items()
    ]
    async with prometheus_api(program, folder, jobs, interval, rules) as api:
        while not await _all_up(api, len(targets)):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.2)
        yield api


@asynccontextmanager
async def prometheus_api(
    program: Path,
    folder: Path,
    jobs: list[dict[str, Any]],
    interval: str = "1s",
    rules: Sequence[Path] = (),
) -> AsyncIterator[aiohttp.ClientSession]:
    """Prometheus with these scrape jobs and files of rules, for a minute at most.

    Gives a client of its HTTP API.
    """
    times = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), interval)
    settings = {
        "global": times,
        "scrape_configs": jobs,
        "rule_files": [str(file) for file in rules],
    }
    (folder / "prometheus.yml").write_text(json.dumps(settings))
    (port,) = free_ports(1)
    async with (
        process(
            program,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ) as started,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as api,
        asyncio.timeout(200),
    ):
        while not await _serves(api):
            assert started.returncode is None, "Prometheus ended"
            await asyncio.sleep(0.2)
        yield api


async def _serves(api: aiohttp.ClientSession) -> bool:
    try:
        return (await api.get("/-/ready")).status == 200
    except aiohttp.ClientConnectionError:
        return False


async def _all_up(api: aiohttp.ClientSession, count: int) -> bool:
    return len(await query(api, "up == 1")) == count


async def query(
    api: aiohttp.ClientSession, expression: str, at: float | None = None
) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each series of an instant query, for now or a Unix time."""
    moment = {} if at is None else {"time": f"{at:.3f}"}
    async with api.get("/api/v1/query", params={"query": expression, **moment}) as answer:
        if answer.status == 503:
            return []
        body: Any = await answer.json()
        assert body["status"] == "success", body
        return [(item["metric"], float(item["value"][1])) for item in body["data"]["result"]]


async def stored(api: aiohttp.ClientSession, job: str) -> Series:
    """All that Prometheus holds of a scrape job, without the labels that it adds itself."""
    found: Series = {}
    selector = f'{{__name__=~"azure_batch_(up|jobs?|account|pool|{HISTOGRAMS})(_.*)?",job="{job}"}}'
    for labels, value in await query(api, selector):
        name = labels.pop("__name__")
        own = {key: text for key, text in labels.items() if key not in ("job", "instance")}
        # In Prometheus a label without a value is no label.
        found[name, frozenset(own.items())] = value
    return found


async def test_prometheus_holds_exactly_the_simulators_numbers_in_both_formats(
    prometheus: Path, tmp_path: Path
) -> None:
    world = World(SCENARIOS["steady"], seed=11, jobs=8, nodes=5, start=START)
    async with serve(world, Clock(START, speed=0.0)) as simulation:
        config = {
            "defaults": {"interval": "1s"},
            "accounts": [
                {
                    "name": simulation.account_name,
                    "endpoint": simulation.endpoint,
                    "auth": {"method": "shared_key", "key_env": "SIMULATED_KEY"},
                    "requests_per_second": 500,
                    "jobs": [{"id_regex": ".*", "states": STATES, "collect": COLLECT}],
                }
            ],
        }
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        async with (
            program(
                "run",
                f"--config.file={tmp_path}/config.yaml",
                "--web.listen-address=127.0.0.1:0",
                SIMULATED_KEY=simulation.account_key,
            ) as exporter,
            asyncio.timeout(200),
        ):
            url = await logged_address(exporter)
            await until_ready(url)
            target = url.removeprefix("http://").removesuffix("/metrics")
            async with (
                as_text(url) as text_target,
                prometheus_scraping(
                    prometheus, tmp_path, {"openmetrics": target, "text": text_target}
                ) as api,
            ):
                everything = Truth(world, simulation.account_name, 0.0).everything()
                expected = {
                    (name, frozenset((key, text) for key, text in labels if text)): value
                    for (name, labels), value in everything.items()
                }
                for job in ("openmetrics", "text"):
                    held = await stored(api, job)
                    assert held.keys() ^ expected.keys() == set()
                    wrong = {
                        key: (held[key], value)
                        for key, value in expected.items()
                        # When the exporter polled is its own; the rest stands still.
                        if held[key] != value
                        and "scrape" not in key[0]
                        and "progress" not in key[0]
                    }
                    assert wrong == {}
                    duplicates = "prometheus_target_scrapes_sample_duplicate_timestamp_total > 0"
                    assert await query(api, duplicates) == []
                ((_, busy),) = await query(
                    api, 'sum(azure_batch_job_tasks{state="running",job="text"})'
                )
                assert busy == sum(
                    value
                    for (name, labels), value in expected.items()
                    if name == "azure_batch_job_tasks" and ("state", "running") in labels
                )
                assert busy > 0


HOSTILE = (
    'x"} 1\nazure_batch_up{account="forged"} 1\n# EOF\n\\',
    "nul \0 in the middle",
    "\u2028\x85\x1b[31m\r\ttext",
    "ü" * 100_000,
    "\ufeff\U0001f600",
    " ",
)


async def test_prometheus_takes_whatever_the_service_calls_its_jobs(
    prometheus: Path, tmp_path: Path, batch: FakeBatch
) -> None:
    jobs = [
        {"id": f"{number}{name}", "displayName": name, "state": "active", "priority": 10**400}
        for number, name in enumerate(HOSTILE)
    ]
    batch.json("/jobs", {"value": jobs})
    for job in jobs:
        batch.json(
            f"/jobs/{quote(str(job['id']), safe='')}/taskcounts", {"taskCounts": {"active": 1}}
        )
    account = {
        "name": "myaccount",
        "endpoint": batch.endpoint,
        "auth": {"method": "shared_key", "key_env": "BATCH_KEY"},
        "requests_per_second": 500,
        "pool_nodes": False,
        "jobs": [{"id_regex": "(?s).*"}],
    }
    defaults = {"interval": "1s", "collect": ["task_counts"]}
    config = {"defaults": defaults, "accounts": [account]}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    arguments = (f"--config.file={tmp_path}/config.yaml", "--web.listen-address=127.0.0.1:0")
    async with program("run", *arguments) as exporter, asyncio.timeout(200):
        url = await logged_address(exporter)
        await until_ready(url)
        target = url.removeprefix("http://").removesuffix("/metrics")
        async with (
            as_text(url) as text_target,
            prometheus_scraping(
                prometheus, tmp_path, {"openmetrics": target, "text": text_target}
            ) as api,
        ):
            for job in ("openmetrics", "text"):
                found = await query(api, f'azure_batch_job_info{{job="{job}"}}')
                seen = {labels["job_id"][0] for labels, _ in found}
                assert seen == {str(number) for number in range(len(HOSTILE))}
                accounts = await query(api, f'count by (account) (azure_batch_up{{job="{job}"}})')
                assert accounts == [({"account": "myaccount"}, 1.0)]


async def test_promtool_has_nothing_to_say_about_the_demo(promtool: Path) -> None:
    async with program("demo", "--web.listen-address=127.0.0.1:0") as demo, asyncio.timeout(200):
        url = await logged_address(demo)
        async with aiohttp.ClientSession() as session:
            await until_ready(url)
            text = await (await session.get(url)).read()
    status, output = await check_metrics(promtool, text)
    assert (status, output) == (0, "")
