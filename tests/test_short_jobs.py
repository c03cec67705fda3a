"""Twenty thousand short jobs of five pipelines cost the series of five groups, and none is missed.

The account is asked without a network, so the program's own timetable runs in virtual time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text
from yarl import URL

from exporter import config
from exporter.config import Rule
from exporter.exposition.body import Format
from exporter.simulator import BatchError, Call, World, short_jobs
from exporter.simulator.ledger import Event, JobCreated, RunCompleted, TaskCompleted
from exporter.simulator.operations import Operations, find_operation
from exporter.simulator.paging import TokenMint
from exporter.simulator.query import parameters_of
from exporter.simulator.scale import SHORT_JOBS
from exporter.simulator.wire import error_body
from exporter.state.failures import Failures
from tests import virtual_time
from tests.offline import ENDPOINT, START, Watch, now, watch
from tests.truth import Series

pytestmark = pytest.mark.full

JOBS = 20_000
ALIVE = 500
DISCOVERY, INTERVAL = 2.0, 6.0

OBSERVABLE = dataclasses.replace(
    SHORT_JOBS,
    # A completed job stays for longer than it takes to discover it and to poll it once: what it
    # did last can always be seen.
    job_retention=(DISCOVERY + INTERVAL + 0.5, DISCOVERY + INTERVAL + 1.5),
    # A node that restarts runs preparation again: the run before might be overwritten unseen.
    node_incident_interval=1e9,
    # The same few pools and codes for all, so that each group soon has all series it can have.
    pools=(2, 2),
    auto_scale_pools=0,
    slots_per_node=(32,),
    task_median=1.0,
    preparation_share=0.2,
    preparation_failure_share=0.1,
    preparation_failures=(("exit-1", 1.0),),
    release_failures=(("exit-1", 1.0),),
    task_failure_share=0.1,
    task_failures=(("exit-1", 1.0),),
)

PASSING = ("_failed_tasks", "_oldest_running_start_timestamp_seconds", "_failure_codes_total")
"""Families that have a series for each code that was met, or while something runs."""

COMPARED = ("_tasks_completed_total", "_tasks_failed_total")

SERIES_OF_A_GROUP = sum(
    (
        3 + 2,  # tasks by state and result
        3 + 2,  # task slots
        1,  # whether its tasks may depend on each other
        1,  # last progress
        2 + 1 + 1 + 1,  # tasks that completed, by result; that started, were added; regressions
        8,  # jobs that ended, by reason
        2 * (1 + 1),  # collectors: success, and when
        2  # pools
        * (
            1  # info
            + 2 * (2 + 2)  # nodes by state and result of preparation, of release
            + 2 * (2 + 3)  # runs that completed by result, that failed by category
            + 1  # retries of preparation
            + 2 * (12 + 1 + 2)  # durations: buckets, sum and count
        ),
    )
)

SERIES_OF_THE_ACCOUNT = sum(
    (
        1,  # up
        2 * (1 + 1),  # collectors: success, and when
        7 + 1,  # jobs by state; dropped
        2 + 3 * 3,  # tasks that completed; that failed, of each kind, by category
        2 * 2 * 16,  # nodes of two pools by kind and state
    )
)

MOST_PASSING = 5 * 2 * 2 * (2 * 2 + 1)
"""Of five groups, two pools and both kinds: two codes, now and ever, and one start."""


class Account:
    """Answers for a world, whose time goes on with each request.

    `first_looks`: ticks at which each thing was asked for first. `stopped`: time stands still.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._operations = Operations(world, TokenMint(b"key"), Random(1))
        self.first_looks: dict[tuple[str, ...], int] = {}
        self.stopped = False

    def answer(self, url: URL) -> tuple[int, bytes]:
        if not self.stopped:
            self._world.advance(now())
        path, _, query = url.raw_path_qs.partition("?")
        operation, ids = find_operation(path)
        self.first_looks.setdefault((operation, *ids), self._world.tick)
        call = Call(operation, ids, ENDPOINT, str(url), parameters_of(query))
        try:
            return 200, self._operations.answer(call).body.encode()
        except BatchError as error:
            return error.status, error_body(error, call.base, "-", self._world.tick).encode()


RULE = Rule.model_validate(
    {
        "id_regex": "nf-(?P<pipeline>[a-z]+)-.*",
        "group": "${pipeline}",
        "completed_for": "1m",
        "interval": f"{INTERVAL:.0f}s",
    }
)
ACCOUNT = config.Account(
    name="simulated",
    endpoint="https://simulated.example",
    jobs=(RULE,),
    discovery_interval=f"{DISCOVERY:.0f}s",
    max_concurrency=64,
)
DEFAULTS = config.Defaults(interval=f"{INTERVAL:.0f}s")


def exposed(service: Watch) -> Series:
    text = service.exposition.body(Format.TEXT).plain.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def containers(root: object) -> Iterator[tuple[str, int]]:
    """Every container that the program's own objects hold, by where it is, and its size."""
    seen: set[int] = set()
    todo: deque[tuple[str, object]] = deque([(type(root).__name__, root)])
    while todo:
        path, found = todo.popleft()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, dict | list | set | frozenset | tuple | deque):
            yield path, len(found)
            values = found.values() if isinstance(found, dict) else found
            todo.extend((f"{path}[]", value) for value in values)
        elif _is_ours(found):
            names = [*getattr(found, "__dict__", ()), *getattr(type(found), "__slots__", ())]
            todo.extend((f"{path}.{name}", getattr(found, name, None)) for name in names)


def _is_ours(found: object) -> bool:
    # Of the latest failures there are as many as may be, and other tests see to that.
    is_part = type(found).__module__.startswith("exporter.") and not isinstance(found, Failures)
    return isinstance(found, Watch) or (is_part and not isinstance(found, World))


def sizes(service: Watch) -> Counter[str]:
    """How much is held in each place, all containers of one kind together."""
    found: Counter[str] = Counter()
    for path, size in containers(service):
        found[path] += size
    return found


@dataclass(frozen=True)
class Look:
    """What there was at one moment, after so many jobs."""

    jobs: int
    shown: Series
    sizes: Counter[str]


def expected(world: World, first_looks: Mapping[tuple[str, ...], int]) -> Series:
    """What happened to each job, from its first sight on where it is older than the watch."""
    series: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()
    first_listing = first_looks["Job_List",]
    old = {job.job_id for job in world.ledger.of(JobCreated, until_tick=first_listing)}

    def add(name: str, **labels: str) -> None:
        given = {"account": "simulated", **labels}
        series[f"azure_batch_{name}_total", frozenset(given.items())] += 1

    def is_seen(operation: str, event: Event) -> bool:
        since = first_looks.get((operation, event.job_id), world.tick)
        return event.job_id not in old or event.tick > since

    def group(event: Event) -> str:
        return event.job_id.split("-")[1]

    for task in world.ledger.of(TaskCompleted, since_tick=first_listing):
        if is_seen("Job_GetTaskCounts", task):
            add("account_tasks_completed", result=task.result)
            add("job_tasks_completed", result=task.result, job_group=group(task))
    for run in world.ledger.of(RunCompleted, since_tick=first_listing):
        if is_seen("Job_ListPreparationAndReleaseTaskStatus", run):
            name = f"job_{run.kind}_tasks"
            where = {"job_group": group(run), "pool_id": run.pool_id}
            add(f"{name}_completed", result=run.result, **where)
            if run.category is not None:
                category = run.category.lower()
                add(f"account_{run.kind}_tasks_failed", category=category)
                add(f"{name}_failed", category=category, **where)
    return {key: float(value) for key, value in series.items()}


def in_circles() -> set[str]:
    """Types of the program's own objects that only the garbage collector can do away with."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        types = {type(each) for each in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    names = {f"{each.__module__}.{each.__qualname__}" for each in types}
    return {name for name in names if re.match(r"exporter\.(?!simulator)", name)}


async def live(world: World) -> tuple[list[Look], Account, set[str]]:
    """Let the account live until all jobs have been; what was seen on the way and in the end, and
    what of the program lay about in circles.
    """
    account = Account(world)
    service = watch(account.answer, ACCOUNT, 2000.0, defaults=DEFAULTS)
    polling = asyncio.create_task(service.run())
    looks: list[Look] = []
    before = world.jobs_made
    for jobs in range(JOBS // 5, JOBS + 1, JOBS // 5):
        while world.jobs_made < before + jobs:  # noqa: ASYNC110 - the world has no events
            await asyncio.sleep(1.0)
        looks.append(Look(jobs, exposed(service), sizes(service)))
    account.stopped = True
    # All is polled once more. Nobody scrapes, so that a new series is a 0 for a minute.
    await asyncio.sleep(2 * (DISCOVERY + INTERVAL))
    looks.append(Look(JOBS, exposed(service), looks[-1].sizes))
    circles = in_circles()
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    return looks, account, circles


def test_the_series_are_those_of_five_groups_and_nothing_is_missed() -> None:
    world = short_jobs(ALIVE, scenario=OBSERVABLE, start=START, ledger=True)
    gc.collect()  # what other tests left in circles is not what this one is about
    # The ledger only grows: Python would look through it for garbage again and again.
    thresholds = gc.get_threshold()
    gc.set_threshold(1_000_000)
    looks, account, circles = virtual_time.run(live(world))
    gc.set_threshold(*thresholds)
    first, end = looks[0], looks[-1]

    pipelines = {event.job_id.split("-")[1] for event in world.ledger.of(JobCreated)}
    assert len(pipelines) == 5
    for look in looks:
        by_group = Counter(
            dict(labels).get("job_group", "")
            for name, labels in look.shown
            if not name.endswith(PASSING)
        )
        assert by_group.pop("") == SERIES_OF_THE_ACCOUNT
        assert by_group == dict.fromkeys(pipelines, SERIES_OF_A_GROUP)
        assert len(look.shown) <= 5 * SERIES_OF_A_GROUP + SERIES_OF_THE_ACCOUNT + MOST_PASSING
        values = {value for _, labels in look.shown for _, value in labels}
        assert [value for value in values if re.search(r"-\d", value)] == []  # no id of a job

    truth = expected(world, account.first_looks)
    assert min(truth.values()) > 0
    wrong = {
        key: (end.shown.get(key), truth.get(key))
        for key in truth.keys() | end.shown.keys()
        if key[0].endswith(COMPARED) and end.shown.get(key, 0) != truth.get(key, 0)
    }
    assert wrong == {}

    # Nothing is left to Python's garbage collector.
    assert circles == set()

    # Of the jobs that are gone nothing is left but what they were called.
    more = (end.jobs - first.jobs) / 100
    grown = {
        where: (first.sizes[where], size)
        for where, size in end.sizes.items()
        if size > first.sizes[where] * 1.05 + more
    }
    assert grown.keys() == {"Watch.store._accounts[].left"}, grown
