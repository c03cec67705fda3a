"""A real Prometheus answers every query of every dashboard and of docs/queries.md with data.

It scrapes the real exporter, which polls a simulated account for each scenario that a panel is made
for. Their life goes ten times as fast, so that what takes minutes is there in seconds.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from exporter.simulator import SCENARIOS, Clock, Faults, Rule, Scenario, World, make_account, serve
from exporter.simulator.scenario import FOR_EVER
from tests.e2e.test_prometheus import prometheus_scraping, query
from tests.pages import Block, blocks
from tests.process import logged_address, program
from tests.test_references import DEPLOY, KNOWN
from tests.tools import find_tool
from tools.dashboards import BOARDS
from tools.dashboards.interpolation import (
    Choice,
    Resolution,
    Target,
    interpolate,
    targets,
    variable_query,
)

pytestmark = pytest.mark.full

SPEED = 10.0
RESOLUTION = Resolution(range_seconds=60, scrape_seconds=1)
PATIENCE = 120  # seconds of real time, of which a few are needed


def lively(scenario: str, **changes: Any) -> Scenario:
    """Jobs that end soon, and whose preparation and release a poll finds running."""
    return dataclasses.replace(
        SCENARIOS[scenario],
        tasks_per_job=(20, 100),
        preparation_share=1.0,
        release_share=1.0,
        preparation_median=20.0,
        release_median=30.0,
        **changes,
    )


ACCOUNTS = {
    "steady": lively("steady"),
    "flaky-tasks": lively("flaky-tasks", flaky_job_share=1.0, release_failure_share=0.5),
    "prep-storm": lively("prep-storm", image_breaks_after=10.0),
    "throttled": lively("steady"),
    "neglected": lively(
        "steady", left_open_share=1.0, job_disable_share=0.5, job_disabled_for=FOR_EVER
    ),
}
"""What lives in the account of each name."""

RULES = [
    {"id_regex": "nf-(?P<pipeline>rnaseq|sarek|methylseq)-.*", "group": "${pipeline}"},
    {"id_regex": ".*", "tasks": ["nf-0001", "nf-0002", "nf-0003"], "completed_for": "1h"},
]


RECORDING_RULES = DEPLOY / "prometheus" / "recording-rules.yaml"

QUESTIONS = {
    "Which jobs do not move, and for how long?": "prep-storm",
    "Why do they not move?": "prep-storm",
    "Which jobs wait beside idle nodes?": "prep-storm",
    "On how many nodes does preparation fail, and why?": "prep-storm",
    "Why did preparation fail in the last hour?": "prep-storm",
    "Which tasks are failed now, and why?": "flaky-tasks",
    "What failed in the last hour?": "flaky-tasks",
    "Which codes does a group fail with, as shares?": "flaky-tasks",
    "Which jobs are done but still active?": "neglected",
    "Which jobs are disabled while tasks wait?": "neglected",
}
"""The scenario of a question of docs/queries.md, where it is not steady."""

MAY_BE_EMPTY = {
    "Is it slower than yesterday at this time?": "this Prometheus has no yesterday",
    "Is the exporter there at all?": "it is",
}
"""Why there need not be an answer: that the question can be asked is all that is proved."""


@asynccontextmanager
async def dashboards_data(folder: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Prometheus with what it scraped of an exporter that polls all the accounts."""
    async with AsyncExitStack() as stack:
        accounts = []
        for seed, (name, scenario) in enumerate(ACCOUNTS.items()):
            start = datetime.now(UTC)
            world = World(scenario, seed=seed, jobs=8, nodes=6, start=start)
            faults = Faults(seed=seed)
            if name == "throttled":
                faults.set(Rule("throttled"))
            simulation = await stack.enter_async_context(
                serve(
                    world,
                    Clock(start, speed=SPEED),
                    account=make_account(seed, name),
                    interceptors=(faults,),
                )
            )
            key_file = folder / f"{name}.key"
            key_file.write_text(simulation.account_key)
            key_file.chmod(0o600)
            accounts.append(
                {
                    "name": name,
                    "endpoint": simulation.endpoint,
                    "auth": {"method": "shared_key", "key_file": str(key_file)},
                    "requests_per_second": 200,
                    "discovery_interval": "1s",
                    "jobs": RULES,
                }
            )
        defaults = {
            "interval": "1s",
            "idle_interval": "2s",
            "resync_interval": "3s",
            "collect": ["task_counts", "preparation_release", "tasks"],
        }
        config = {"state_file": "state.db", "defaults": defaults, "accounts": accounts}
        (folder / "config.yaml").write_text(json.dumps(config))
        arguments = (f"--config.file={folder}/config.yaml", "--web.listen-address=127.0.0.1:0")
        exporter = await stack.enter_async_context(program("run", *arguments))
        url = await logged_address(exporter)
        target = {"exporter": url.removeprefix("http://").removesuffix("/metrics")}
        yield await stack.enter_async_context(
            prometheus_scraping(find_tool("prometheus"), folder, target, rules=(RECORDING_RULES,))
        )


async def has_data(api: aiohttp.ClientSession, target: Target) -> bool:
    """Whether anything would be drawn."""
    # Prometheus has lived for seconds only: no whole minute of samples is there.
    expression = target.expression.replace(":1m]", ":1s]")
    now = time.time()
    parameters = {"query": expression, "time": f"{now:.3f}"}
    path = "/api/v1/query"
    if not target.instant:
        start = now - RESOLUTION.range_seconds
        parameters = {"query": expression, "start": f"{start:.3f}", "end": f"{now:.3f}"}
        parameters["step"] = str(RESOLUTION.step)
        path += "_range"
    async with api.get(path, params=parameters) as answer:
        body: Any = await answer.json()
    assert body["status"] == "success", (target.name, body)
    values = [
        float(value)
        for series in body["data"]["result"]
        for _, value in series.get("values", [series.get("value")])
    ]
    return any(map(math.isfinite, values))


async def without_data(
    api: aiohttp.ClientSession, asked: Mapping[str, Target], until: float
) -> list[str]:
    """Those of the queries that had data at no time until then, by `time.monotonic`."""
    missing = dict(asked)
    while missing and time.monotonic() < until:
        for name, target in list(missing.items()):
            if await has_data(api, target):
                del missing[name]
        if missing:
            await asyncio.sleep(0.5)  # until more has happened and was scraped
    return [f"{name}: {target.expression}" for name, target in missing.items()]


async def label_values(api: aiohttp.ClientSession, selector: str, label: str) -> list[str]:
    """What a variable can be, as Grafana asks for it."""
    async with api.get(f"/api/v1/label/{label}/values", params={"match[]": selector}) as answer:
        return list((await answer.json())["data"])


def asked_of(model: Mapping[str, Any], scenarios: list[str], **chosen: Choice) -> dict[str, Target]:
    """Each query of a dashboard with these variables, of the account of its scenario."""
    found: dict[str, Target] = {}
    # A query's own account is not in its JSON, so all are made once for each scenario.
    by_scenario = {
        scenario: list(targets(model, {"account": scenario, **chosen}, RESOLUTION))
        for scenario in set(scenarios)
    }
    for number, scenario in enumerate(scenarios):
        target = by_scenario[scenario][number]
        found[f"{target.name} of {scenario}, {chosen}"] = target
    return found


async def missing_of_newest(
    api: aiohttp.ClientSession, model: Mapping[str, Any], label: str
) -> list[str]:
    """What the job dashboard does not show of the progress of the newest job or of a group.

    The newest: an older one may be gone before all was asked for.
    """
    found = await query(api, f'azure_batch_job_info{{account="steady",{label}!=""}}')
    created = await query(api, 'azure_batch_job_created_timestamp_seconds{account="steady"}')
    age = {labels["job_id"]: when for labels, when in created}
    names = sorted({labels[label] for labels, _ in found}, key=lambda name: age.get(name, 0.0))
    if not names:
        return [f"no {label}"]
    board = next(board for board in BOARDS if board.uid == model["uid"])
    progress = [each for panel in board.sections[0].panels for each in panel.queries]
    of_one = asked_of(model, ["steady"] * len(progress), **{label: names[-1]})
    assert len(of_one) == len(progress)
    return [name for name, target in of_one.items() if not await has_data(api, target)]


def of_account(expression: str, account: str) -> str:
    """An expression that looks at one account only, wherever a series is of one."""

    def selected(found: re.Match[str]) -> str:
        name, brace = found[1], found[2]
        if "account" not in KNOWN.get(name, ()):
            return found[0]
        return f'{name}{{account="{account}"' + ("," if brace else "}")

    return re.sub(r"([a-z_]+[a-z0-9_:]*)(\{)?", selected, expression)


def queries_of(page: str) -> list[Block]:
    """Those of a page of docs/."""
    return [block for block in blocks(f"docs/{page}") if block.language == "promql"]


def questions() -> dict[str, Target]:
    """Each query of docs/queries.md, by the question above it."""
    page = "queries.md"
    found = queries_of(page)
    asked = {
        block.heading: Target(
            board=page,
            panel={"title": block.heading},
            ref_id="",
            expression=of_account(block.text, QUESTIONS.get(block.heading, "steady")),
            instant=True,
        )
        for block in found
    }
    assert len(asked) == len(found)
    return asked


async def test_every_panel_variable_and_query_of_the_docs_has_data(tmp_path: Path) -> None:
    models = {board.uid: board.model() for board in BOARDS}
    asked: dict[str, Target] = {}
    for board in BOARDS:
        scenarios = [query.scenario for panel in board.panels for query in panel.queries]
        assert set(scenarios) <= ACCOUNTS.keys()
        asked |= asked_of(models[board.uid], scenarios)
    assert len(asked) == sum(len(panel.queries) for board in BOARDS for panel in board.panels)

    cookbook = questions()
    assert cookbook.keys() >= QUESTIONS.keys() | MAY_BE_EMPTY.keys()
    only_asked = {heading: cookbook.pop(heading) for heading in MAY_BE_EMPTY}
    asked |= cookbook

    async with dashboards_data(tmp_path) as api:
        for target in only_asked.values():
            await has_data(api, target)
        for block in queries_of("recipes.md"):  # of other accounts
            assert await query(api, block.text) == []
        until = time.monotonic() + PATIENCE
        assert await without_data(api, asked, until) == []

        for uid, model in models.items():
            for variable in model["templating"]["list"]:
                if variable["type"] != "query":
                    continue
                selector, label = variable_query(variable["query"]["query"])
                chosen = {"account": "steady"} if variable["name"] != "account" else {}
                filled = interpolate(selector, model, chosen, RESOLUTION)
                while not (values := await label_values(api, filled, label)):
                    assert time.monotonic() < until, (uid, variable["name"])
                    await asyncio.sleep(0.5)
                assert all(values)

        until = time.monotonic() + PATIENCE
        for label in ("job_id", "job_group"):
            while missing := await missing_of_newest(api, models["azure-batch-job"], label):
                assert time.monotonic() < until, missing
                await asyncio.sleep(0.5)
