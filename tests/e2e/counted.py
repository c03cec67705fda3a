"""An account that lives, the exporter as a process, and a Prometheus that scrapes it.

What Prometheus stored of the counters is compared with the account's own ledger.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from exporter.simulator import Call, Clock, Proceed, Scenario, Simulation, World, serve
from exporter.simulator.ledger import (
    Ledger,
    RunCompleted,
    TaskAdded,
    TaskCompleted,
    TaskRequeued,
    TaskRetried,
)
from tests.e2e.test_prometheus import COLLECT, prometheus_scraping, query
from tests.process import logged_address, program
from tests.tools import find_tool

START = datetime(2024, 6, 1, 12, 0, 0, 750_000, tzinfo=UTC)
"""In the past: the exporter does not believe a clock that is far ahead of its own.

The header Date is cut to whole seconds, and the exporter adds half a second. At three quarters what
it takes for the time of its first listing is not later than the listing: a job that is created
next is new.
"""

STEP, PAUSE = 1.0, 0.05
"""World seconds that pass at once, and real seconds from one such step to the next."""

WINDOW = "10m"
"""Longer than all that Prometheus has seen."""

COUNTERS = '{__name__=~"azure_batch_(account|job)_.+_total"}'

Labels = frozenset[tuple[str, str]]
Growth = dict[str, Counter[Labels]]
"""By how much each counter grew, by some of its labels."""

Span = tuple[int, int | None]
"""Ticks: what happened after the first one, up to and at the second. None: to the end."""

LABELS = {
    "account_tasks_completed": ("result",),
    "account_tasks_failed": ("category",),
    "job_tasks_completed": ("result",),
    "job_tasks_failed": ("category",),
    "job_task_failure_codes": ("category", "code"),
    "job_tasks_added": (),
    "job_task_retries": (),
    "job_task_requeues": (),
    "account_preparation_tasks_failed": ("category",),
    "job_preparation_tasks_completed": ("result",),
    "job_preparation_tasks_failed": ("category",),
    "job_preparation_task_failure_codes": ("category", "code"),
    "account_release_tasks_failed": ("category",),
    "job_release_tasks_completed": ("result",),
    "job_release_tasks_failed": ("category",),
    "job_release_task_failure_codes": ("category", "code"),
}
"""The counters that are compared, and by which labels; over all others they are added up."""


def metric(name: str) -> str:
    return f"azure_batch_{name}_total"


def truth(ledger: Ledger, *spans: Span) -> Growth:
    """By how much each counter must have grown."""
    grown: Growth = {metric(name): Counter() for name in LABELS}
    for span in spans:
        for names, given in happened(ledger, *span):
            for name in names:
                labels = frozenset((label, given[label]) for label in LABELS[name])
                grown[metric(name)][labels] += 1
    return grown


def happened(
    ledger: Ledger, since: int, until: int | None
) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """The names of the counters to which each event adds 1, and its labels."""
    completed: list[TaskCompleted | RunCompleted] = [
        *ledger.of(TaskCompleted, since_tick=since, until_tick=until),
        *ledger.of(RunCompleted, since_tick=since, until_tick=until),
    ]
    for event in completed:
        kind = f"{event.kind}_" if isinstance(event, RunCompleted) else ""
        of_account = () if kind else ("account_tasks_completed",)
        yield (f"job_{kind}tasks_completed", *of_account), {"result": event.result}
        if event.category is not None and event.code is not None:
            yield (
                (
                    f"account_{kind}tasks_failed",
                    f"job_{kind}tasks_failed",
                    f"job_{kind}task_failure_codes",
                ),
                {"category": event.category.lower(), "code": event.code},
            )
    for counted, name in (
        (TaskAdded, "job_tasks_added"),
        (TaskRetried, "job_task_retries"),
        (TaskRequeued, "job_task_requeues"),
    ):
        for _ in ledger.of(counted, since_tick=since, until_tick=until):
            yield (name,), {}


@dataclass(frozen=True)
class Stored:
    """One series of a counter as Prometheus stored it."""

    labels: dict[str, str]
    samples: Sequence[float]

    @property
    def growth(self) -> float:
        """The sum of all positive steps. After a fall, which is a reset, the new value counts."""
        return sum(new - old if new >= old else new for old, new in pairwise(self.samples))

    @property
    def falls(self) -> int:
        """How often it became less."""
        return sum(new < old for old, new in pairwise(self.samples))


async def stored(api: aiohttp.ClientSession) -> list[Stored]:
    """The raw samples of all counters of jobs and the account."""
    async with api.get("/api/v1/query", params={"query": f"{COUNTERS}[{WINDOW}]"}) as answer:
        body: Any = await answer.json()
    assert body["status"] == "success", body
    return [
        Stored(item["metric"], [float(value) for _, value in item["values"]])
        for item in body["data"]["result"]
    ]


def growth(series: Iterable[Stored]) -> Growth:
    """By how much the counters have grown, added up by LABELS."""
    by = {metric(name): labels for name, labels in LABELS.items()}
    grown: Growth = {name: Counter() for name in by}
    for each in series:
        if (name := each.labels["__name__"]) in by and each.growth:
            labels = frozenset((label, each.labels[label]) for label in by[name])
            grown[name][labels] += each.growth  # type: ignore[assignment]
    return grown


def differences(found: Growth, expected: Growth) -> dict[Any, tuple[float, float]]:
    """What was counted and what happened, where the two differ."""
    return {
        (name, labels): (found[name][labels], expected[name][labels])
        for name in expected
        for labels in found[name].keys() | expected[name].keys()
        if found[name][labels] != expected[name][labels]
    }


async def until(api: aiohttp.ClientSession, expression: str) -> None:
    """Wait until Prometheus gives anything for this."""
    while not await query(api, expression):  # noqa: ASYNC110 - another process: there is no event
        await asyncio.sleep(0.1)


class Watch:
    """Stands before the account, and notes what was answered of which job."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._answered: set[tuple[int | None, str]] = set()
        self._changed = asyncio.Event()

    async def __call__(self, _: web.Request, call: Call, proceed: Proceed) -> web.StreamResponse:
        """Let a request pass."""
        job = self._world.find_job(call.ids[0]) if call.ids else None
        try:
            return await proceed()
        finally:
            self._answered.add((job.number if job else None, call.operation))
            self._changed.set()

    async def all_asked(self) -> None:
        """Wait until the jobs were listed, and all that are not over were read, after now.

        There is one poll of a job and collector at a time, so the second begins when what the first
        one read is folded.
        """
        self._answered.clear()
        while not self._wanted() <= self._answered:
            self._changed.clear()
            await self._changed.wait()

    def _wanted(self) -> set[tuple[int | None, str]]:
        wanted: set[tuple[int | None, str]] = {(None, "Job_List")}
        for job in self._world.jobs.values():
            if job.state != "completed":
                wanted |= {(job.number, "Job_GetTaskCounts"), (job.number, "Task_List")}
                if job.preparation is not None:
                    wanted.add((job.number, "Job_ListPreparationAndReleaseTaskStatus"))
        return wanted


@dataclass
class Play:
    """The account, the exporter and Prometheus. Simulated time moves only in `live` and `step`."""

    simulation: Simulation
    watch: Watch
    folder: Path
    stack: AsyncExitStack
    address: str = "127.0.0.1:0"
    exporter: asyncio.subprocess.Process = field(init=False)
    api: aiohttp.ClientSession = field(init=False)

    @property
    def world(self) -> World:
        return self.simulation.world

    @property
    def state_file(self) -> Path:
        return self.folder / "s.db"

    async def start(self) -> None:
        """Start the exporter, always at the same address."""
        self.exporter = await self.stack.enter_async_context(
            program(
                "run",
                f"--config.file={self.folder}/config.yaml",
                f"--web.listen-address={self.address}",
                SIMULATED_KEY=self.simulation.account_key,
            )
        )
        url = await logged_address(self.exporter)
        self.address = url.removeprefix("http://").removesuffix("/metrics")

    async def kill(self) -> None:
        """Kill the exporter."""
        self.exporter.kill()
        await self.exporter.wait()

    def step(self, seconds: float) -> None:
        """So much time passes in the account at once."""
        self.simulation.clock.advance(seconds)
        self.world.advance(self.simulation.clock.now())

    async def live(self, seconds: float) -> None:
        """The account lives on in small steps, for so many real seconds."""
        for _ in range(round(seconds / PAUSE)):
            self.step(STEP)
            await asyncio.sleep(PAUSE)

    async def scraped(self) -> None:
        """Wait until Prometheus has scraped after now."""
        await until(self.api, f"timestamp(azure_batch_up) > {time.time()}")

    async def all_read(self) -> int:
        """Wait until the exporter has read everything; gives the tick of the account."""
        await self.watch.all_asked()
        return self.world.tick

    async def differences(self, *spans: Span) -> dict[Any, tuple[float, float]]:
        """What was counted and what happened in these spans, where the two differ.

        What was read is shown once it is saved, and in full once the 0 of new series was scraped.
        So what is still missing may come with the next scrapes; what is too much stays.
        """
        expected = truth(self.world.ledger, *spans)
        for _ in range(3):
            for _ in range(2):  # with the second all is folded that the first one read
                await self.watch.all_asked()
            for _ in range(3):
                await self.scraped()
            found = differences(growth(await stored(self.api)), expected)
            if not found:
                break
        return found


@asynccontextmanager
async def playing(
    folder: Path, scenario: Scenario, jobs: int, rules: list[dict[str, Any]]
) -> AsyncIterator[Play]:
    """All of them running, about so many jobs polled every second; nothing is counted yet."""
    prometheus = find_tool("prometheus")
    world = World(scenario, seed=2, jobs=jobs, nodes=6, start=START, ledger=True)
    watch = Watch(world)
    async with (
        serve(
            world, Clock(START, speed=0.0), interceptors=[watch], simulated_date=True
        ) as simulation,
        AsyncExitStack() as stack,
    ):
        account = {
            "name": simulation.account_name,
            "endpoint": simulation.endpoint,
            "auth": {"method": "shared_key", "key_env": "SIMULATED_KEY"},
            "requests_per_second": 500,
            "discovery_interval": "1s",
            "jobs": [{"collect": COLLECT, **rule} for rule in rules],
        }
        config = {"state_file": "s.db", "defaults": {"interval": "1s"}, "accounts": [account]}
        (folder / "config.yaml").write_text(json.dumps(config))
        play = Play(simulation, watch, folder, stack)
        await play.start()
        targets = {"exporter": play.address}
        scraping = prometheus_scraping(prometheus, folder, targets, "250ms")
        play.api = await stack.enter_async_context(scraping)
        await play.all_read()
        await play.scraped()
        # What happened before the account began to move is in none of them.
        assert {value for _, value in await query(play.api, COUNTERS)} == {0.0}
        yield play
