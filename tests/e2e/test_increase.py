"""What Prometheus makes of the counters, while the exporter is killed again and again."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from exporter.simulator import SCENARIOS, Call, Clock, Proceed, World, serve
from exporter.simulator.ledger import (
    Ledger,
    RunCompleted,
    TaskAdded,
    TaskCompleted,
    TaskRequeued,
    TaskRetried,
)
from tests.e2e.test_prometheus import STATES, prometheus_scraping, query
from tests.process import logged_address, program
from tests.tools import find_tool

pytestmark = pytest.mark.full

START = datetime(2026, 6, 1, 12, tzinfo=UTC)

OBSERVABLE = dataclasses.replace(
    SCENARIOS["flaky-tasks"],
    # The service shows of a node only its latest run: a node that restarts runs preparation again,
    # and one that ended while nobody looked would be overwritten.
    node_incident_interval=1e9,
    # Nor does it tell the counts of two jobs of one id apart: here no id comes back. A completed
    # job stays for a minute at least, much longer than the exporter is ever away.
    pipelines_only=True,
    preparation_share=1.0,
    preparation_failure_share=0.2,
    release_failure_share=0.2,
    tasks_per_job=(10, 60),
)

STEP, PAUSE = 1.0, 0.05
"""World seconds that pass at once, and real seconds from one such step to the next."""

DOWN = 1.0
"""Real seconds for which the exporter is away at least: so many that Prometheus notices."""

KILLS = 2

WINDOW = "10m"
"""Longer than all that Prometheus has seen."""

Labels = frozenset[tuple[str, str]]


async def pass_time(clock: Clock, seconds: float) -> None:
    """The world lives on in small steps, for so many real seconds."""
    for _ in range(round(seconds / PAUSE)):
        clock.advance(STEP)
        await asyncio.sleep(PAUSE)


async def until(api: aiohttp.ClientSession, expression: str) -> None:
    """Wait until Prometheus gives anything for this."""
    while not await query(api, expression):  # noqa: ASYNC110 - another process: there is no event
        await asyncio.sleep(0.1)


async def until_polled(api: aiohttp.ClientSession) -> None:
    """Wait until everything was polled after now, and Prometheus has scraped that."""
    now = time.time()
    for what in ("job", "account"):
        name = f"azure_batch_{what}_last_scrape_success_timestamp_seconds"
        await until(api, f"min({name}) > {now}")


def truth(ledger: Ledger, since: int) -> dict[str, Counter[Labels]]:
    """By how much each counter must have grown, summed over its other labels."""
    grown: dict[str, Counter[Labels]] = {}

    def add(names: Iterable[str], **labels: str) -> None:
        for name in names:
            found = grown.setdefault(f"azure_batch_{name}_total", Counter())
            found[frozenset(labels.items())] += 1

    for task in ledger.of(TaskCompleted, since_tick=since):
        add(("account_tasks_completed", "job_tasks_completed"), result=task.result)
        if task.category is not None and task.code is not None:
            category = task.category.lower()
            add(("account_tasks_failed", "job_tasks_failed"), category=category)
            add(("job_task_failure_codes",), category=category, code=task.code)
    for run in ledger.of(RunCompleted, since_tick=since):
        add((f"job_{run.kind}_tasks_completed",), result=run.result)
        if run.category is not None and run.code is not None:
            category = run.category.lower()
            names = (f"account_{run.kind}_tasks_failed", f"job_{run.kind}_tasks_failed")
            add(names, category=category)
            add((f"job_{run.kind}_task_failure_codes",), category=category, code=run.code)
    for kind, name in (
        (TaskAdded, "job_tasks_added"),
        (TaskRetried, "job_task_retries"),
        (TaskRequeued, "job_task_requeues"),
    ):
        for _ in ledger.of(kind, since_tick=since):
            add((name,))
    return grown


async def test_increase_over_kills_of_the_exporter_is_what_happened(tmp_path: Path) -> None:
    prometheus = find_tool("prometheus")
    chance = random.Random()
    world = World(OBSERVABLE, seed=2, jobs=10, nodes=6, start=START, ledger=True)
    clock = Clock(START, speed=0.0)

    async def tell_time(_: web.Request, __: Call, proceed: Proceed) -> web.StreamResponse:
        """The service's own clock: when a job was created is compared with it."""
        response = await proceed()
        response.headers["Date"] = format_datetime(clock.now(), usegmt=True)
        return response

    async with (
        serve(world, clock, interceptors=[tell_time]) as simulation,
        AsyncExitStack() as stack,
    ):
        rule = {
            "id_regex": ".*",
            "states": STATES,
            "group": "all",
            "collect": ["task_counts", "preparation_release", "tasks"],
        }
        account = {
            "name": simulation.account_name,
            "endpoint": simulation.endpoint,
            "auth": {"method": "shared_key", "key_env": "SIMULATED_KEY"},
            "requests_per_second": 500,
            "discovery_interval": "1s",
            "jobs": [rule],
        }
        config = {"state_file": "s.db", "defaults": {"interval": "1s"}, "accounts": [account]}
        (tmp_path / "config.yaml").write_text(json.dumps(config))

        async def start(address: str) -> tuple[asyncio.subprocess.Process, str]:
            started = await stack.enter_async_context(
                program(
                    "run",
                    f"--config.file={tmp_path}/config.yaml",
                    f"--web.listen-address={address}",
                    SIMULATED_KEY=simulation.account_key,
                )
            )
            url = await logged_address(started)
            return started, url.removeprefix("http://").removesuffix("/metrics")

        exporter, address = await start("127.0.0.1:0")
        scraping = prometheus_scraping(prometheus, tmp_path, {"exporter": address}, "250ms")
        api = await stack.enter_async_context(scraping)
        await until_polled(api)
        counters = '{__name__=~"azure_batch_(account|job)_.+_total"}'
        # What happened before the world began to move is in none of them.
        assert {value for _, value in await query(api, counters)} == {0.0}
        since = world.tick

        for _ in range(KILLS):
            await pass_time(clock, chance.uniform(1.0, 2.5))
            exporter.kill()
            await exporter.wait()
            await pass_time(clock, DOWN)
            (exporter, _), _ = await asyncio.gather(start(address), pass_time(clock, 0.5))
        await pass_time(clock, 1.0)
        for _ in range(3):  # what appeared last is shown in full once its 0 was scraped
            await until_polled(api)

        expected = truth(world.ledger, since)
        # Prometheus adds to an increase what it may have been between the edges of the window and
        # the samples next to them: nothing before the first, which is 0, and nothing after the
        # last if that is where the window ends. So this is no estimate.
        ((_, last),) = await query(api, "timestamp(azure_batch_up)")
        wrong = {}
        for name in sorted(expected):
            by = sorted({label for labels in expected[name] for label, _ in labels})
            asked = {
                "increase": f"increase({name}[{WINDOW}])",
                "last - first": f"({name} - min_over_time({name}[{WINDOW}]))",
                "first": f"min_over_time({name}[{WINDOW}])",
                "resets": f"resets({name}[{WINDOW}])",
            }
            for what, expression in asked.items():
                answer = await query(api, f"sum by ({','.join(by)}) ({expression})", last)
                found = {frozenset(labels.items()): value for labels, value in answer if value}
                wanted = expected[name] if what in ("increase", "last - first") else {}
                if found != wanted:
                    wrong[name, what] = (found, wanted)
        assert wrong == {}
        for kind in ("", "preparation_", "release_"):
            by_code = f"sum(azure_batch_job_{kind}task_failure_codes_total)"
            by_category = f"sum(azure_batch_job_{kind}tasks_failed_total)"
            apart = f"max_over_time(abs({by_code} - {by_category})[{WINDOW}:250ms])"
            assert [value for _, value in await query(api, apart, last)] == [0.0]
        # It was seen to be away each time.
        ((_, falls),) = await query(api, f"resets(up[{WINDOW}])", last)
        assert falls == KILLS
    of_tasks = expected["azure_batch_account_tasks_completed_total"]
    runs = expected["azure_batch_job_preparation_tasks_completed_total"]
    assert of_tasks and runs
