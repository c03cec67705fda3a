"""Every fault of the catalogue, as it comes through a socket."""

import asyncio
import gzip
import logging
import re
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from exporter.simulator import (
    CATALOGUE,
    Clock,
    Faults,
    Rule,
    Simulation,
    World,
    fault_routes,
    serve,
)
from exporter.simulator.faults.pages import GROWTH
from exporter.simulator.operations import OPERATIONS

from .conftest import VERSION, signed
from .fault_checks import CHECKS, refused
from .raw_client import NO_LIMIT, Seen, fetch

HEAVY = {
    "endless-body",
    "gzip-bomb",
    "hanging-body",
    "hanging-headers",
    "huge-body",
    "record-flood",
    "tiny-chunks",
    "value-flood",
    "never-answering",
    "reset-midway",
    "slow-body",
}
"""Those that take their time: played on one operation only."""


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
async def simulation(
    old_world: World, faults: Faults, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Simulation]:
    """The account with these faults; a mistake of its own fails the test."""
    clock = Clock(old_world.now, speed=0)
    async with serve(
        old_world,
        clock,
        interceptors=(faults,),
        routes=fault_routes(faults),
        simulated_date=True,
    ) as served:
        yield served
    logged = caplog.get_records("call")
    assert not [record for record in logged if record.levelno >= logging.WARNING]


def urls(world: World) -> dict[str, str]:
    """A URL of each operation that has something to answer."""
    job = next(
        job
        for job in world.jobs.values()
        if len(job.records) > 2 and job.started and len(job.tasks) > 2
    )
    task = next(task for task in job.tasks.values() if task.failure)
    paths = {
        "Account_ListPoolNodeCounts": "/nodecounts",
        "Job_Get": f"/jobs/{job.id}",
        "Job_GetTaskCounts": f"/jobs/{job.id}/taskcounts",
        "Job_List": "/jobs",
        "Job_ListFromJobSchedule": "/jobschedules/report-daily/jobs",
        "Job_ListPreparationAndReleaseTaskStatus": (
            f"/jobs/{job.id}/jobpreparationandreleasetaskstatus"
        ),
        "Pool_Get": f"/pools/{next(iter(world.pools))}",
        "Pool_List": "/pools",
        "Task_Get": f"/jobs/{job.id}/tasks/{task.id}",
        "Task_List": f"/jobs/{job.id}/tasks",
        "Task_ListSubtasks": f"/jobs/{job.id}/tasks/{task.id}/subtasksinfo",
    }
    return {name: f"{path}?api-version={VERSION}" for name, path in paths.items()}


def test_every_fault_is_checked() -> None:
    assert CHECKS.keys() | ON_PAGES.keys() == CATALOGUE.keys()
    assert not CHECKS.keys() & ON_PAGES.keys()
    assert len(CATALOGUE) >= 55
    for fault in CATALOGUE.values():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", fault.name)
        assert fault.summary and not fault.summary.endswith(".")
        assert fault.operations and fault.operations <= OPERATIONS


@pytest.mark.parametrize("name", CHECKS)
async def test_a_fault_is_what_it_says(simulation: Simulation, faults: Faults, name: str) -> None:
    operation, check = CHECKS[name]
    url = urls(simulation.world)[operation]
    true = await fetch(simulation, url)
    assert (true.status, true.ended) == (200, "close")
    faults.set(Rule(name))
    limit = 6_000_000 if name == "endless-body" else NO_LIMIT
    floods = {"gzip-bomb", "huge-body", "record-flood", "tiny-chunks", "value-flood"}
    patience = 0.5 if name in HEAVY - floods else 60.0
    check(await fetch(simulation, url, limit=limit, patience=patience), true)
    assert faults.played == {name: 1}
    faults.clear()
    assert alike(await fetch(simulation, url)) == alike(true)


def alike(seen: Seen) -> bytes:
    """What came, without that which differs each time."""
    raw = seen.raw
    if raw and seen.headers.get("content-encoding") == "gzip" and seen.body[:2] == b"\x1f\x8b":
        with suppress(zlib.error, EOFError, gzip.BadGzipFile):
            raw = "\r\n".join([*seen.start, ""]).encode() + gzip.decompress(seen.body)
    raw = re.sub(rb"(request-id: |RequestId:)[0-9a-f-]{36}", rb"\1", raw)
    return re.sub(rb"(127\.0\.0\.1|localhost):\d+", b"here", raw)


@pytest.fixture(scope="module")
def truth() -> dict[str, bytes]:
    """What each operation answers without a fault, once that was asked for."""
    return {}


@pytest.mark.parametrize("name", sorted(CATALOGUE.keys() - HEAVY))
async def test_a_fault_shows_on_its_operations_and_on_no_others(
    simulation: Simulation, faults: Faults, truth: dict[str, bytes], name: str
) -> None:
    for operation, url in urls(simulation.world).items():
        if operation not in truth:
            faults.clear()
            truth[operation] = alike(await fetch(simulation, url))
        faults.set(Rule(name))
        seen = alike(await fetch(simulation, url))
        assert (seen != truth[operation]) == (operation in CATALOGUE[name].operations), operation


async def test_what_is_no_whole_answer_passes(simulation: Simulation, faults: Faults) -> None:
    url = urls(simulation.world)["Task_Get"]
    etag = (await fetch(simulation, url)).headers["etag"]
    for name in ("truncated-json", "null-members", "gzip-bomb", "length-too-long", "hanging-body"):
        faults.set(Rule(name))
        assert (await fetch(simulation, url, {"If-None-Match": etag})).status == 304
        assert (await fetch(simulation, url.replace("/tasks/", "/tasks/no"))).status == 404


@pytest.mark.parametrize("name", sorted(CATALOGUE.keys() - HEAVY))
async def test_a_fault_can_be_played_on_an_answer_with_little_in_it(
    simulation: Simulation, faults: Faults, name: str
) -> None:
    faults.set(Rule(name))
    url = urls(simulation.world)["Job_List"]
    nothing_own = "$select=state"
    following = "timeout=100001"  # as in a link that a fault made up
    for query in (nothing_own, f"{nothing_own}&{following}", "$filter=id%20eq%20'none'"):
        await fetch(simulation, f"{url}&{query}")  # the fixture looks for mistakes
    assert faults.played.total() in (0, 3)


async def test_a_compressed_answer_is_changed_like_any_other(
    simulation: Simulation, faults: Faults
) -> None:
    url = urls(simulation.world)["Job_List"]
    true = await fetch(simulation, url)
    packed = await fetch(simulation, url, {"Accept-Encoding": "gzip"})
    assert gzip.decompress(packed.body) == true.body
    faults.set(Rule("null-objects"))
    seen = await fetch(simulation, url, {"Accept-Encoding": "gzip"})
    assert "content-encoding" not in seen.headers
    assert seen.json["value"] == [None] * len(true.json["value"])


# Lists: the pages that a client reads which follows every link.


async def follow(simulation: Simulation, url: str, most: int) -> tuple[list[Any], list[str], int]:
    """The ids on each page, the links followed, and the last status; `most` pages."""
    pages, links, status = [], [], 200
    following: str | None = url
    while following is not None and len(pages) < most:
        seen = await fetch(simulation, following)
        status = seen.status
        if status != 200:
            break
        pages.append([record["id"] for record in seen.json["value"]])
        following = seen.json.get("odata.nextLink")
        if following is not None:
            links.append(following)
    return pages, links, status


Pages = list[list[str]]


def copies(true: Pages) -> Pages:
    return true + [[f"{id_}-{number}" for id_ in true[-1]] for number in range(1, GROWTH + 1)]


ON_PAGES: Mapping[str, tuple[Callable[[Pages], Pages], int] | Callable[[str], object]] = {
    "duplicate-records": (lambda true: [page + page for page in true], 200),
    "empty-pages": (lambda true: [[], true[0], [], true[1]], 200),
    "endless-empty-pages": (lambda _: [[]] * 50, 200),
    "growing-list": (copies, 200),
    "next-link-circle": (lambda true: [true[0]] * 50, 200),
    "next-link-dropped": (lambda true: [true[0][: len(true[0]) // 2]], 200),
    "next-link-to-itself": (lambda true: [true[0]] * 50, 200),
    "next-page-fails": (lambda true: [true[0]], 500),
    "next-page-refused": (lambda true: [true[0]], 400),
    "reordered-records": (lambda true: [page[::-1] for page in true], 200),
    "repeated-pages": (lambda true: [true[0], true[0], true[1], true[1]], 200),
    "next-link-elsewhere": lambda url: url.replace("127.0.0.1", "localhost"),
    "next-link-empty": lambda _: "",
    "next-link-huge": lambda url: f"{url}&$skiptoken={'x' * 100_000}",
    "next-link-no-url": lambda _: "http://[::bad:port/\0",
    "next-link-number": lambda _: 2,
    "next-link-relative": lambda url: urlsplit(url)._replace(scheme="", netloc="").geturl(),
}


@pytest.mark.parametrize("name", ON_PAGES)
async def test_a_fault_of_lists_is_what_it_says(
    simulation: Simulation, faults: Faults, name: str
) -> None:
    url = f"{simulation.endpoint}/jobs?api-version={VERSION}&maxresults=25"
    true, _, _ = await follow(simulation, url, 50)
    assert list(map(len, true)) == [25, len(simulation.world.jobs) - 25]
    faults.set(Rule(name))
    expected = ON_PAGES[name]
    if callable(expected):
        assert (await fetch(simulation, url)).json["odata.nextLink"] == expected(url)
        return
    pages, links, status = await follow(simulation, url, 50)
    assert (pages, status) == (expected[0](true), expected[1])
    distinct = {"next-link-to-itself": 1, "next-link-circle": 2}.get(name, len(links))
    assert len(set(links)) == distinct


# Which requests a fault is played on.


async def statuses(simulation: Simulation, url: str, number: int) -> list[int]:
    return [(await fetch(simulation, url)).status for _ in range(number)]


async def test_a_rule_is_for_one_operation(simulation: Simulation, faults: Faults) -> None:
    faults.set(Rule("internal-error", operation="Job_Get"))
    for operation, url in urls(simulation.world).items():
        seen = await fetch(simulation, url)
        assert seen.status == (500 if operation == "Job_Get" else 200)


async def test_a_rule_is_for_one_job_in_whatever_case(
    simulation: Simulation, faults: Faults
) -> None:
    url = urls(simulation.world)["Job_Get"]
    job = url.split("/")[2].partition("?")[0]
    other = next(id_ for id_ in simulation.world.jobs if id_ != job)
    faults.set(Rule("internal-error", job_id=job.upper()))
    for operation, on_job in urls(simulation.world).items():
        seen = await fetch(simulation, on_job)
        hit = operation.startswith(("Job_Get", "Task_", "Job_ListPrep"))
        assert seen.status == (500 if hit else 200), operation
        assert (await fetch(simulation, on_job.replace(job, other, 1))).status != 500


async def test_a_rule_hits_so_many_requests_and_then_no_more(
    simulation: Simulation, faults: Faults
) -> None:
    url = urls(simulation.world)["Job_Get"]
    faults.set(Rule("internal-error", operation="Job_Get", count=2))
    assert (await fetch(simulation, urls(simulation.world)["Job_List"])).status == 200
    assert faults.active == (Rule("internal-error", operation="Job_Get", share=1.0, count=2),)
    assert await statuses(simulation, url, 4) == [500, 500, 200, 200]
    assert faults.active == ()


async def test_a_share_is_drawn_by_chance_and_the_seed_decides(
    old_world: World, simulation: Simulation, faults: Faults
) -> None:
    url = urls(old_world)["Job_Get"]
    faults.set(Rule("internal-error", share=0.4))
    first = await statuses(simulation, url, 100)
    assert 25 < first.count(500) < 55
    faults.set(Rule("internal-error", share=0.4))
    assert await statuses(simulation, url, 100) == first
    other = Faults(Rule("internal-error", share=0.4), seed=1)
    async with serve(old_world, simulation.clock, interceptors=(other,)) as served:
        assert await statuses(served, url, 100) != first


async def test_the_first_rule_whose_turn_it_is_has_the_request(
    simulation: Simulation, faults: Faults
) -> None:
    faults.set(
        Rule("condition-not-met", operation="Job_List"),
        Rule("internal-error", count=1),
        Rule("server-busy"),
    )
    assert await statuses(simulation, urls(simulation.world)["Job_Get"], 2) == [500, 503]
    assert await statuses(simulation, urls(simulation.world)["Job_List"], 1) == [412]
    assert faults.played == {"condition-not-met": 1, "internal-error": 1, "server-busy": 1}


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (partial(Rule, "internal-eror"), "did you mean internal-error?"),
        (partial(Rule, "zzz"), "GET /simulator/faults names all"),
        (partial(Rule, "outage", operation="Job_Gett"), "did you mean Job_Get?"),
        (partial(Rule, "outage", share=0), "share 0: write a number above 0"),
        (partial(Rule, "outage", share=1.5), "share 1.5: write a number above 0"),
        (partial(Rule, "outage", count=0), "count 0: write 1 or more"),
        (partial(Rule, "outage", operation="Job_List", job_id="a"), "played on Job_List with a"),
        (partial(Rule, "reordered-records", operation="Job_Get"), "it is for Account_List"),
        (partial(Rule, "task-not-found", operation="Job_Get"), "for Task_Get, Task_ListSubt"),
    ],
)
def test_a_rule_that_can_never_apply_is_refused(rule: Callable[[], Rule], error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        rule()


# What remembers, and what lasts.


async def test_a_new_token_cures_one_that_has_expired(
    old_world: World, simulation: Simulation, faults: Faults
) -> None:
    tokens = [
        simulation.tokens.issue("https://batch.core.windows.net/", timedelta(hours=1))
        for _ in range(2)
    ]

    async def ask(token: str) -> int:
        url = urls(old_world)["Job_Get"]
        return (await fetch(simulation, url, {"Authorization": f"Bearer {token}"})).status

    faults.set(Rule("token-expired-once"))
    assert [await ask(tokens[n]) for n in (0, 0, 1, 0, 1)] == [401, 401, 200, 401, 200]
    faults.set(Rule("token-expired"))
    assert [await ask(tokens[n]) for n in (0, 1)] == [401, 401]
    faults.set(Rule("auth-expired"))
    assert await ask(tokens[0]) == 401
    refused(403, "AuthenticationFailed")(
        await fetch(simulation, urls(old_world)["Job_Get"]), ANY_SEEN
    )


ANY_SEEN = Seen(b"", "")


async def test_throttling_comes_in_waves(old_world: World) -> None:
    now = 1000.0
    faults = Faults(Rule("throttled"), now=lambda: now)
    clock, url = Clock(old_world.now, speed=0), urls(old_world)["Job_Get"]
    async with serve(old_world, clock, interceptors=(faults,)) as simulation:
        shares = []
        for _ in range(4):
            seen = [await fetch(simulation, url) for _ in range(40)]
            assert {one.headers.get("retry-after") for one in seen if one.status == 429} <= {"5"}
            shares.append([one.status for one in seen].count(429) / len(seen))
            now += 60
    assert shares[1] == shares[3] == 0
    assert 0.3 < shares[0] < 0.7 and 0.3 < shares[2] < 0.7


async def test_in_an_outage_nothing_is_answered_but_503(
    simulation: Simulation, faults: Faults
) -> None:
    faults.set(Rule("outage"))
    seen = [await fetch(simulation, urls(simulation.world)["Job_Get"]) for _ in range(30)]
    ends = {one.ended if not one.raw else one.status for one in seen}
    assert ends == {503, "reset"}


async def test_garbage_is_every_fault_by_chance(old_world: World) -> None:
    faults = Faults(Rule("garbage", share=1.0))
    assert Faults(Rule("garbage")).active == (Rule("garbage", share=0.3),)
    clock = Clock(old_world.now, speed=0)
    async with serve(old_world, clock, interceptors=(faults,)) as simulation:
        url = urls(old_world)["Task_Get"]
        # A hundred at once: some of them hang.
        asked = (fetch(simulation, url, limit=1000, patience=0.5) for _ in range(100))
        await asyncio.gather(*asked)
    assert faults.played.pop("garbage") == 100 == faults.played.total()
    assert len(faults.played) > 40
    assert all("Task_Get" in CATALOGUE[name].operations for name in faults.played)


# Nobody waits for ever, and no memory fills.


@pytest.mark.parametrize("name", ["never-answering", "endless-body", "slow-body"])
async def test_who_hangs_up_is_served_no_longer(
    simulation: Simulation,
    faults: Faults,
    name: str,
) -> None:
    before = asyncio.all_tasks()
    faults.set(Rule(name))
    url = urls(simulation.world)["Job_Get"]
    await asyncio.gather(*(fetch(simulation, url, limit=100_000, patience=0.4) for _ in range(3)))
    async with asyncio.timeout(200):
        while asyncio.all_tasks() - before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_server_that_ends_ends_what_hangs(old_world: World) -> None:
    faults = Faults(Rule("never-answering", count=1), Rule("endless-body"))
    clock, url = Clock(old_world.now, speed=0), urls(old_world)["Job_Get"]
    async with asyncio.timeout(200):
        async with serve(old_world, clock, interceptors=(faults,)) as simulation:
            hanging = asyncio.create_task(fetch(simulation, url, patience=60))
            while not faults.played:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await hanging).raw == b""


async def test_an_endless_body_waits_for_its_reader(simulation: Simulation, faults: Faults) -> None:
    faults.set(Rule("endless-body"))
    parts = urlsplit(simulation.endpoint)
    headers = "".join(
        f"{name}: {value}\r\n"
        for name, value in signed(simulation, urls(simulation.world)["Job_Get"]).items()
    )
    _, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1000)
    url = urls(simulation.world)["Job_Get"]
    writer.write(f"GET {url} HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}\r\n".encode())
    tracemalloc.start()
    await asyncio.sleep(0.15)  # nobody reads
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    writer.transport.abort()
    assert faults.played == {"endless-body": 1}
    assert peak < 2_000_000
