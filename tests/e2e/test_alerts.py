"""The shipped alerts, proven: on each scenario of the simulated account exactly those that fit."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from exporter.simulator import SCENARIOS, Clock, Faults, Rule, World, make_account, serve
from tests.e2e.alerting import SHIPPED, Names, Watch, watching
from tests.e2e.test_prometheus import query
from tests.process import logged_address, program, until_ready
from tests.tools import NEW, OLD, find_tool

pytestmark = pytest.mark.full

T = TypeVar("T")

SEED = 3

DEADLINE = 300.0
"""Seconds until every alert has come that is to come."""

SCRAPED = "sum_over_time(up[1m]) >= 10"

QUIET = 20
"""Evaluations of all rules after that, in which no other may come."""


@dataclass(frozen=True)
class Case:
    """An account of its own. `faults` begin when everything was polled once.

    `rule` and `account`: settings of the job rule and of the account. `speed`: simulated seconds
    to a real one. `age`: simulated seconds that the scenario has lasted before anybody looks.
    `by_chance`: alerts that may come, too, as chance decides.
    """

    name: str
    scenario: str
    expected: frozenset[str]
    speed: float = 1.0
    age: float = 0.0
    jobs: int = 3
    nodes: int = 4
    rule: dict[str, Any] = field(default_factory=dict)
    account: dict[str, Any] = field(default_factory=dict)
    faults: Sequence[Rule] = ()
    by_chance: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Exporter:
    """One that runs. `target`: where it serves its metrics, as a scrape job names it."""

    process: asyncio.subprocess.Process
    target: str


def alerts(*names: str) -> frozenset[str]:
    """Names with their common prefix."""
    return frozenset(f"AzureBatch{name}" for name in names)


TASKS = {"collect": ["task_counts", "preparation_release", "tasks"]}
GROUP = {"group": "all"}
ENDED = {"completed_for": "1h"}
KEPT = {"stale_after": 100}
# In a small pool one node of four may be away for a while, and that is not what is to be shown.
LARGE: dict[str, Any] = {"nodes": 24, "jobs": 4}

CASES = (
    Case("steady", "steady", alerts(), rule=TASKS, **LARGE),
    Case("spot-eviction", "spot-eviction", alerts(), rule=TASKS, **LARGE),
    Case("steady-group", "steady", alerts(), rule=TASKS | GROUP, **LARGE),
    Case("prep-storm", "prep-storm", alerts("PreparationFailingEverywhere"), age=300, **LARGE),
    Case(
        "prep-storm-group",
        "prep-storm",
        alerts("PreparationFailingEverywhere"),
        age=300,
        rule=GROUP,
        **LARGE,
    ),
    Case("flaky-prep", "flaky-prep", alerts("PreparationFailing"), **LARGE),
    Case("failing-release", "failing-release", alerts("ReleaseTasksFailing"), speed=5, **LARGE),
    Case("failing-tasks", "failing-tasks", alerts("TasksFailing"), **LARGE),
    Case("failing-tasks-group", "failing-tasks", alerts("TasksFailing"), rule=GROUP, **LARGE),
    Case(
        "failing-categories",
        "failing-tasks",
        alerts("TasksFailingByCategory"),
        rule=TASKS,
        nodes=60,
    ),
    Case("blocked-tasks", "blocked-tasks", alerts("JobStalledDependency")),
    Case("blocked-tasks-group", "blocked-tasks", alerts("JobStalledDependency"), rule=GROUP),
    Case("large-tasks", "large-tasks", alerts("JobStalledLargeTasks")),
    Case("stalled", "stalled", alerts("JobStalled"), age=300),
    Case("stalled-group", "stalled", alerts("JobStalled"), age=300, rule=GROUP),
    Case("unusable-nodes", "unusable-nodes", alerts("JobStalledNoNodes", "NodesUnusable")),
    Case(
        "start-task-failed",
        "start-task-failed",
        alerts("JobStalledNoNodes", "NodesStartTaskFailed"),
        rule=GROUP,
    ),
    Case("backlog", "backlog", alerts("TasksQueuedTooLong"), rule=TASKS, nodes=24, jobs=1),
    Case("leaked-jobs", "leaked-jobs", alerts("JobLeaked"), **LARGE),
    # Jobs that would have an alert of their own, were what is still shown of them fresh.
    Case(
        "outage",
        "blocked-tasks",
        alerts("AccountUnreachable"),
        rule=KEPT,
        faults=[Rule("outage")],
    ),
    Case(
        "auth-expired",
        "large-tasks",
        alerts("AccountForbidden"),
        rule=KEPT,
        faults=[Rule("auth-expired")],
    ),
    Case(
        "no-access",
        "unusable-nodes",
        alerts("AccountForbidden"),
        rule=KEPT,
        faults=[Rule("no-access")],
    ),
    Case(
        "failing-polls",
        "blocked-tasks",
        alerts("PollsFailing"),
        rule=KEPT,
        faults=[Rule("internal-error", operation="Job_GetTaskCounts")],
    ),
    # Whatever the answers are, no job is said to have a failure that it has not.
    Case(
        "garbage",
        "steady",
        alerts(),
        faults=[Rule("garbage")],
        by_chance=alerts(
            "AccountForbidden", "AccountUnreachable", "DataStale", "PollsFailing", "Throttled"
        ),
        **LARGE,
    ),
    Case(
        "flaky-tasks",
        "flaky-tasks",
        alerts("TasksFailingByCategory"),
        speed=2,
        rule=TASKS,
        # Two jobs of five are flaky, by chance, and one of them has to be so for long enough.
        nodes=60,
        jobs=10,
    ),
    Case("throttled", "steady", alerts("Throttled"), faults=[Rule("throttled")], **LARGE),
    Case(
        "too-few-requests",
        "steady",
        alerts("PollsSkipped"),
        rule=ENDED,
        account={"requests_per_second": 2},
        **LARGE,
    ),
    Case(
        "rarely-listed",
        "steady",
        alerts("DataStale"),
        account={"discovery_interval": "1h"},
        **LARGE,
    ),
    Case(
        "max-jobs",
        "steady",
        alerts("JobsDropped"),
        rule=ENDED,
        account={"max_jobs": 1},
        **LARGE,
    ),
    Case(
        "max-series",
        "steady",
        alerts("SeriesDropped"),
        jobs=40,
        nodes=24,
        rule=ENDED | {"interval": "5s", "collect": ["task_counts"]},
        account={"max_series": 1000},
    ),
)

BROKEN = alerts("ConfigReloadFailed", "StateFileBroken")
KILLED = alerts("ExporterDown")

UNPROVEN = alerts("ExporterInternalErrors")
"""A defect that nobody foresaw cannot be played: the tests of the rules must do."""


def expected() -> Names:
    """What is to come, and nothing else."""
    found = {case.name: set(case.expected) for case in CASES if case.expected}
    return found | {"broken": set(BROKEN), "killed": set(KILLED)}


def test_every_alert_is_expected_of_some_case() -> None:
    files = yaml.safe_load((SHIPPED / "alerts.yaml").read_text())
    shipped = {rule["alert"] for group in files["groups"] for rule in group["rules"]}
    assert set().union(*expected().values()) | UNPROVEN == shipped


def missing(told: Names) -> dict[str, set[str]]:
    """What did not come, for whom there is such."""
    found = {who: due - told.get(who, set()) for who, due in expected().items()}
    return {who: names for who, names in found.items() if names}


def unexpected(told: Names) -> dict[str, set[str]]:
    """What came and should not, for whom there is such."""
    possible = expected()
    for case in CASES:
        possible[case.name] = possible.get(case.name, set()) | case.by_chance
    found = {who: names - possible.get(who, set()) for who, names in told.items()}
    return {who: names for who, names in found.items() if names}


async def simulate(stack: AsyncExitStack, case: Case, faults: Faults) -> dict[str, Any]:
    """Serve the case's account; its configuration."""
    start = datetime.now(UTC)
    world = World(
        SCENARIOS[case.scenario],
        seed=SEED,
        jobs=case.jobs,
        nodes=case.nodes,
        start=start - timedelta(seconds=case.age),
    )
    clock = Clock(start, speed=case.speed)
    account = make_account(SEED, case.name)
    serving = serve(world, clock, account=account, interceptors=[faults])
    simulation = await stack.enter_async_context(serving)
    return {
        "name": case.name,
        "endpoint": simulation.endpoint,
        "auth": {"method": "shared_key", "key_env": "SIMULATED_KEY"},
        "requests_per_second": 500,
        "discovery_interval": "2s",
        "jobs": [{"id_regex": ".*", **case.rule}],
        **case.account,
    }


def configure(folder: Path, accounts: Iterable[dict[str, Any]], **settings: Any) -> Path:
    """A configuration file with these accounts."""
    folder.mkdir()
    file = folder / "config.yaml"
    defaults = {"interval": "2s", "idle_interval": "0s"}
    file.write_text(json.dumps({"defaults": defaults, "accounts": list(accounts), **settings}))
    return file


async def until_told(watch: Watch) -> None:
    """Wait until everything has come that is expected, and then for what else may come."""

    with suppress(TimeoutError):  # then the comparison says what is missing
        async with asyncio.timeout(DEADLINE):
            while missing(watch.inbox.names()):  # noqa: ASYNC110 - as below
                await asyncio.sleep(0.2)
    last = await watch.evaluations() + QUIET
    while await watch.evaluations() < last:  # noqa: ASYNC110 - another process: there is no event
        await asyncio.sleep(0.2)


@asynccontextmanager
async def exporting(file: Path) -> AsyncIterator[Exporter]:
    """The program with this configuration, when it has polled everything once."""
    arguments = (f"--config.file={file}", "--web.listen-address=127.0.0.1:0")
    key = make_account(SEED).key
    async with program("run", *arguments, SIMULATED_KEY=key) as started:
        url = await logged_address(started)
        assert started.stderr is not None
        # Whoever does not read what it logs stops it.
        reading = asyncio.create_task(started.stderr.read())
        try:
            await until_ready(url)
            yield Exporter(started, url.removeprefix("http://").removesuffix("/metrics"))
        finally:
            reading.cancel()


@asynccontextmanager
async def all_of(contexts: Sequence[AbstractAsyncContextManager[T]]) -> AsyncIterator[list[T]]:
    """Enter them side by side."""
    async with AsyncExitStack() as stack:
        yield await asyncio.gather(*map(stack.enter_async_context, contexts))


async def test_each_scenario_has_exactly_its_alerts_on_both_versions(tmp_path: Path) -> None:
    for release in (OLD, NEW):
        find_tool("prometheus", release)
    faults = {case.name: Faults(seed=SEED) for case in CASES}
    async with AsyncExitStack() as stack:
        accounts = {case.name: await simulate(stack, case, faults[case.name]) for case in CASES}
        one_job = [accounts["max-jobs"]]
        files = {
            "main": configure(tmp_path / "main", accounts.values()),
            "broken": configure(tmp_path / "broken", one_job, state_file="nowhere/state.db"),
            "killed": configure(tmp_path / "killed", one_job),
        }
        starting = all_of([exporting(file) for file in files.values()])
        exporters = dict(zip(files, await stack.enter_async_context(starting), strict=True))
        for case in CASES:
            faults[case.name].set(*case.faults)
        targets = {name: exporter.target for name, exporter in exporters.items()}
        watches = await stack.enter_async_context(
            all_of([watching(release, tmp_path / release, targets) for release in (OLD, NEW)])
        )
        for watch in watches:
            # So many that what the rules look back on is there when they begin.
            while len(await query(watch.api, SCRAPED)) < len(targets):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            watch.load_rules()

        exporters["killed"].process.kill()
        files["broken"].write_text("accounts: none")
        exporters["broken"].process.send_signal(signal.SIGHUP)

        await asyncio.gather(*map(until_told, watches))
        told = {
            release: (missing(names), unexpected(names))
            for release, watch in zip((OLD, NEW), watches, strict=True)
            if (names := watch.inbox.names())
        }
    assert told == {OLD: ({}, {}), NEW: ({}, {})}
