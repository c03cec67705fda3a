"""Every fault of the catalogue, as it comes through a socket."""

import asyncio
import gzip
import json
import logging
import math
import re
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
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
from exporter.simulator.faults import connections, members, sizes
from exporter.simulator.faults.pages import GROWTH, PAGES
from exporter.simulator.operations import OPERATIONS

from .conftest import VERSION, signed
from .raw_client import NO_LIMIT, Seen, fetch

HEAVY = {
    "endless-body",
    "gzip-bomb",
    "hanging-body",
    "hanging-headers",
    "huge-body",
    "never-answering",
    "reset-midway",
    "slow-body",
}
"""Those that take their time: played on one operation only."""


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
async def simulation(old_world: World, faults: Faults) -> AsyncIterator[Simulation]:
    clock = Clock(old_world.now, speed=0)
    async with serve(
        old_world, clock, interceptors=(faults,), routes=fault_routes(faults)
    ) as served:
        yield served


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


# What a client sees of each fault; `true` is the answer without it.

Check = Callable[[Seen, Seen], None]


def refused(status: int, code: str, **headers: str) -> Check:
    """The service's own error, in its own form."""

    def check(seen: Seen, _: Seen) -> None:
        assert (seen.status, seen.json["code"]) == (status, code)
        assert seen.headers["content-type"] == "application/json; odata=minimalmetadata"
        assert f"RequestId:{seen.headers['request-id']}\n" in seen.json["message"]["value"]
        found = {name for name in ("retry-after", "www-authenticate") if name in seen.headers}
        wanted = {name.replace("_", "-"): value for name, value in headers.items()}
        assert {name: seen.headers[name] for name in found} == wanted

    return check


def page(status: int, text: bytes) -> Check:
    """A web page."""

    def check(seen: Seen, _: Seen) -> None:
        assert seen.status == status
        assert seen.headers["content-type"].startswith("text/html")
        assert seen.body.startswith(b"<html>") and text in seen.body

    return check


def nothing(status: int) -> Check:
    def check(seen: Seen, _: Seen) -> None:
        assert (seen.status, seen.body, seen.ended) == (status, b"", "close")

    return check


def redirected(status: int, *, away: bool = True) -> Check:
    def check(seen: Seen, true: Seen) -> None:
        assert (seen.status, seen.body) == (status, b"")
        asked = true.json["odata.metadata"].partition("/$metadata")[0]
        target = seen.headers["location"]
        assert target.endswith(f"/taskcounts?api-version={VERSION}")
        assert target.startswith(asked) != away
        assert urlsplit(target).port == urlsplit(asked).port
        assert urlsplit(target).hostname == ("localhost" if away else "127.0.0.1")

    return check


def body(expected: Callable[[bytes], bytes]) -> Check:
    """200 with a body that follows from the true one."""

    def check(seen: Seen, true: Seen) -> None:
        assert (seen.status, seen.ended) == (200, "close")
        assert seen.headers["content-type"] == true.headers["content-type"]
        assert seen.body == expected(true.body)

    return check


def no_json(error: type[Exception], start: bytes = b"") -> Check:
    def check(seen: Seen, true: Seen) -> None:
        assert seen.status == 200 and seen.body.startswith(start)
        with pytest.raises(error):
            json.loads(seen.body)
        assert json.loads(true.body)

    return check


def counts(expected: Callable[[int], object]) -> Check:
    """Each count of tasks and slots."""

    def check(seen: Seen, true: Seen) -> None:
        for name in ("taskCounts", "taskSlotCounts"):
            found = {key: expected(value) for key, value in true.json[name].items()}
            assert seen.json[name] == found
            assert [type(value) for value in seen.json[name].values()] == [
                type(value) for value in found.values()
            ]

    return check


def whole(expected: Callable[[dict[str, Any]], object]) -> Check:
    """The JSON of the body follows from the true one."""

    def check(seen: Seen, true: Seen) -> None:
        assert seen.json == expected(true.json) != true.json

    return check


def each(*names: str, expected: Callable[[str], object]) -> Check:
    """These members of each record, and that there are records."""

    def check(seen: Seen, true: Seen) -> None:
        assert seen.status == 200 and true.json["value"]
        for found, right in zip(seen.json["value"], true.json["value"], strict=True):
            for name in names:
                assert found[name] == expected(right[name]) != right[name]

    return check


def ids(text: str) -> Check:
    return each("id", expected=lambda value: value + text)


def dates(expected: Callable[[str], str]) -> Check:
    return each("creationTime", "stateTransitionTime", expected=expected)


def not_a_number(seen: Seen, _: Seen) -> None:
    assert b'"active": NaN' in seen.body
    assert all(math.isnan(value) for value in seen.json["taskCounts"].values())


def garbage(seen: Seen, _: Seen) -> None:
    assert (seen.status, seen.body) == (418, bytes(range(256)))


def half_of_it(seen: Seen, true: Seen) -> None:
    half = true.body[: len(true.body) // 2]
    assert (seen.status, seen.body) == (206, half)
    assert seen.headers["content-range"] == f"bytes 0-{len(half) - 1}/{len(true.body)}"


def retry_at_a_date(seen: Seen, _: Seen) -> None:
    wait = parsedate_to_datetime(seen.headers["retry-after"]) - datetime.now(UTC)
    assert seen.status == 429 and timedelta(seconds=2) < wait <= timedelta(seconds=5)


def dated(hours: float) -> Check:
    def check(seen: Seen, true: Seen) -> None:
        away = parsedate_to_datetime(seen.headers["date"]) - datetime.now(UTC)
        assert abs(away - timedelta(hours=hours)) < timedelta(seconds=10)
        assert seen.body == true.body

    return check


def undated(seen: Seen, true: Seen) -> None:
    assert (seen.status, seen.body) == (200, true.body)
    assert "date" in true.headers and "date" not in seen.headers


def dated_nonsense(seen: Seen, true: Seen) -> None:
    assert (seen.headers["date"], seen.body) == ("around noon", true.body)


def encoded(encoding: str) -> Check:
    def check(seen: Seen, _: Seen) -> None:
        assert (seen.status, seen.headers["content-encoding"]) == (200, encoding)

    return check


def broken_gzip(*errors: type[Exception], starts_well: bool = True) -> Check:
    def check(seen: Seen, true: Seen) -> None:
        encoded("gzip")(seen, true)
        assert seen.body.startswith(b"\x1f\x8b") == starts_well
        with pytest.raises(errors):
            gzip.decompress(seen.body)

    return check


def unknown_encoding(seen: Seen, true: Seen) -> None:
    encoded("zip9")(seen, true)
    assert seen.body != true.body


def huge(seen: Seen, true: Seen) -> None:
    assert int(seen.headers["content-length"]) == len(seen.body) > 64 * 1024 * 1024
    assert seen.ended == "close"
    assert seen.json == true.json


def bomb(seen: Seen, true: Seen) -> None:
    assert (seen.headers["content-encoding"], seen.ended) == ("gzip", "close")
    assert len(seen.raw) < 300_000
    unpacker, size, piece, rest = zlib.decompressobj(wbits=31), 0, b"", seen.body
    while rest or not unpacker.eof:
        last, piece = piece, unpacker.decompress(rest, 1 << 22)
        rest, size = unpacker.unconsumed_tail, size + len(piece)
    assert size > 200 * 1024 * 1024
    assert json.loads((last + piece).strip()) == true.json


def endless(seen: Seen, _: Seen) -> None:
    assert (seen.status, seen.ended) == (200, "limit")
    assert seen.rest.count(b" ") > 5_000_000


def header_flood(seen: Seen, true: Seen) -> None:
    assert len(seen.headers) > sizes.HEADERS and seen.body == true.body


def long_header(seen: Seen, true: Seen) -> None:
    assert len(seen.headers["x-long"]) == sizes.LONG_HEADER and seen.body == true.body


def chunk_broken_off(seen: Seen, true: Seen) -> None:
    size, _, rest = seen.rest.partition(b"\r\n")
    assert int(size, 16) == len(true.body) > len(rest) > 0
    assert seen.ended == "close"


def chunk_size_nonsense(seen: Seen, true: Seen) -> None:
    assert seen.headers["transfer-encoding"] == "chunked"
    assert seen.rest == b"many\r\n" + true.body


def length(expected: Callable[[int], int]) -> Check:
    def check(seen: Seen, true: Seen) -> None:
        assert int(seen.headers["content-length"]) == expected(len(true.body))
        assert (seen.rest, seen.ended) == (true.body, "close")

    return check


def cut(ended: str) -> Check:
    """The start of a right answer, and then what ends it."""

    def check(seen: Seen, true: Seen) -> None:
        assert int(seen.headers["content-length"]) == len(true.body) > len(seen.body) > 0
        assert true.body.startswith(seen.body)
        assert seen.ended == ended

    return check


def in_headers(seen: Seen, _: Seen) -> None:
    assert seen.ended == "silence"
    assert seen.raw.startswith(b"HTTP/1.1 200 OK\r\n") and b"\r\n\r\n" not in seen.raw


def slowly(seen: Seen, _: Seen) -> None:
    assert connections.PACE > 0.15  # so that one byte is all that can have come
    assert (seen.ended, seen.rest) == ("silence", b"1\r\n{\r\n")


def bare(raw: bytes, ended: str) -> Check:
    def check(seen: Seen, _: Seen) -> None:
        assert (seen.raw, seen.ended) == (raw, ended)

    return check


def one_huge_id(seen: Seen, true: Seen) -> None:
    found, right = seen.json["value"], true.json["value"]
    assert found[0]["id"] == right[0]["id"] + members.LONG_ID
    assert len(members.LONG_ID) == 100_000 and found[1:] == right[1:]


def more_members(seen: Seen, true: Seen) -> None:
    assert seen.json["taskCounts"].pop("addedLater")["values"] == [1, "two", None, {}]
    assert seen.json["taskCounts"] == {"addedLater": ANY} | true.json["taskCounts"]


class _Anything:
    def __eq__(self, _: object) -> bool:
        return True

    __hash__ = object.__hash__


ANY = _Anything()


def twice(seen: Seen, true: Seen) -> None:
    assert seen.json == true.json
    firsts: list[Any] = []
    json.loads(seen.body, object_pairs_hook=lambda pairs: firsts.append(pairs) or dict(pairs))
    for pairs in firsts:
        names = [name for name, _ in pairs]
        assert names[::2] == names[1::2] and {value for _, value in pairs[::2]} == {None}


def nested(seen: Seen, true: Seen) -> None:
    no_json(RecursionError)(seen, true)
    start, _, rest = seen.body.partition(b',"addedLater":')
    assert rest == b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert json.loads(start + b"}") == true.json


ON_COUNTS: dict[str, Check] = {
    "account-disabled": refused(403, "AccountIsDisabled"),
    "authentication-failed": refused(403, "AuthenticationFailed"),
    "bad-gateway": page(502, b"Bad Gateway"),
    "byte-order-mark": body(lambda true: b"\xef\xbb\xbf" + true),
    "chunk-size-nonsense": chunk_size_nonsense,
    "chunks-broken-off": chunk_broken_off,
    "closed-without-answer": bare(b"", "close"),
    "condition-not-met": refused(412, "ConditionNotMet"),
    "connection-reset": bare(b"", "reset"),
    "corrupt-gzip": broken_gzip(zlib.error, gzip.BadGzipFile),
    "date-ahead": dated(1),
    "date-behind": dated(-1),
    "date-missing": undated,
    "date-nonsense": dated_nonsense,
    "duplicate-keys": twice,
    "empty-body": body(lambda _: b""),
    "empty-objects": whole(lambda true: true | {"taskCounts": {}, "taskSlotCounts": {}}),
    "endless-body": endless,
    "forbidden": refused(403, "Forbidden"),
    "found": redirected(302),
    "fractional-numbers": counts(lambda value: value + 0.5),
    "gateway-timeout": page(504, b"Gateway Time-out"),
    "gzip-bomb": bomb,
    "hanging-body": cut("silence"),
    "hanging-headers": in_headers,
    "header-flood": header_flood,
    "html-instead": page(200, b"Sign in"),
    "huge-body": huge,
    "huge-integers": counts(lambda _: 10**400),
    "infinite-numbers": counts(lambda _: math.inf),
    "internal-error": refused(500, "InternalError"),
    "invalid-json": no_json(json.JSONDecodeError, b"{\r\n  'odata.metadata':"),
    "invalid-query": refused(400, "InvalidQueryParameterValue"),
    "invalid-state": refused(409, "OperationInvalidForCurrentState"),
    "invalid-utf8": no_json(UnicodeDecodeError, b'{\r\n  "odata.metadata":"\xc3\x28\xffhttp'),
    "job-being-deleted": refused(409, "JobBeingDeleted"),
    "job-being-terminated": refused(409, "JobBeingTerminated"),
    "job-not-found": refused(404, "JobNotFound"),
    "json-array": body(lambda _: b"[]"),
    "json-empty-object": body(lambda _: b"{}"),
    "json-null": body(lambda _: b"null"),
    "json-number": body(lambda _: b"42"),
    "json-text": body(lambda _: b'"jobs"'),
    "length-too-long": length(lambda true: true + 1000),
    "length-too-short": length(lambda true: true // 2),
    "long-header": long_header,
    "missing-members": whole(lambda true: {"odata.metadata": true["odata.metadata"]}),
    "moved-permanently": redirected(301),
    "nan-numbers": not_a_number,
    "negative-numbers": counts(lambda value: -value - 1),
    "nested-deep": no_json(RecursionError, b'{"value":[[['),
    "nested-deep-unknown": nested,
    "never-answering": bare(b"", "silence"),
    "no-content": nothing(204),
    "not-found-html": page(404, b"Not Found"),
    "not-gzip": broken_gzip(gzip.BadGzipFile, starts_well=False),
    "not-http": bare(b"SSH-2.0-OpenSSH_9.6\r\n", "close"),
    "not-modified": nothing(304),
    "null-members": counts(lambda _: None),
    "null-objects": whole(lambda true: true | {"taskCounts": None, "taskSlotCounts": None}),
    "numbers-as-text": counts(str),
    "numbers-as-words": counts(lambda _: "many"),
    "objects-as-arrays": whole(
        lambda true: (
            true | {name: list(true[name].values()) for name in ("taskCounts", "taskSlotCounts")}
        )
    ),
    "operation-timed-out": refused(500, "OperationTimedOut"),
    "partial-content": half_of_it,
    "permanent-redirect": redirected(308),
    "redirect-to-itself": redirected(307, away=False),
    "request-timeout": refused(408, "RequestTimeout"),
    "reset-midway": cut("reset"),
    "server-busy": refused(503, "ServerBusy"),
    "server-busy-retry-after": refused(503, "ServerBusy", retry_after="5"),
    "slow-body": slowly,
    "teapot": garbage,
    "temporary-redirect": redirected(307),
    "token-expired": refused(401, "AuthenticationFailed", www_authenticate="Bearer"),
    "token-expired-once": refused(401, "AuthenticationFailed", www_authenticate="Bearer"),
    "too-many-requests": refused(429, "TooManyRequests", retry_after="5"),
    "too-many-requests-date": retry_at_a_date,
    "too-many-requests-huge": refused(429, "TooManyRequests", retry_after="9" * 20),
    "too-many-requests-negative": refused(429, "TooManyRequests", retry_after="-5"),
    "too-many-requests-nonsense": refused(429, "TooManyRequests", retry_after="when it suits us"),
    "too-many-requests-silent": refused(429, "TooManyRequests"),
    "truncated-gzip": broken_gzip(EOFError),
    "truncated-json": body(lambda true: true[: len(true) // 2]),
    "two-documents": body(lambda true: true + true),
    "unauthorized": nothing(401),
    "unknown-encoding": unknown_encoding,
    "unknown-members": more_members,
    "unsupported-version": refused(400, "UnsupportedRequestVersion"),
    "utf16": body(lambda true: true.decode().encode("utf-16")),
}
"""Of Job_GetTaskCounts."""

ON_OTHERS: dict[str, tuple[str, Check]] = {
    "arrays-as-objects": (
        "Job_List",
        whole(lambda true: json.loads(json.dumps(true), object_hook=without_arrays)),
    ),
    "dates-first": ("Job_List", dates(lambda _: "0001-01-01T00:00:00Z")),
    "dates-last": ("Job_List", dates(lambda _: "9999-12-31T23:59:59.9999999Z")),
    "dates-nonsense": ("Job_List", dates(lambda _: "the day before yesterday")),
    "dates-out-of-range": ("Task_List", dates(lambda _: "2024-13-45T25:61:61Z")),
    "dates-without-zone": ("Pool_List", dates(lambda value: value[:-1])),
    "id-huge": ("Job_List", one_huge_id),
    "ids-with-emoji": ("Task_List", ids("\U0001f525\u202e\u0301")),
    "ids-with-newlines": ("Job_List", ids("\n\r\n\u2028")),
    "ids-with-nul": ("Job_List", ids("\0\x01\x1b[2J")),
    "ids-with-quotes": ("Pool_List", ids("\"'`\\")),
    "ids-with-slashes": ("Job_List", ids("/../?a=b&c#%2e%")),
    "ids-with-surrogates": ("Job_List", ids("\ud800")),
    "label-injection": ("Job_List", ids('"} 1\nfake_metric 1\n#')),
    "not-configured": (
        "Job_ListPreparationAndReleaseTaskStatus",
        refused(409, "JobPreparationTaskOrReleaseTaskNotSpecified"),
    ),
    "task-not-found": ("Task_Get", refused(404, "TaskNotFound")),
    "texts-as-numbers": ("Job_List", each("id", "state", "creationTime", expected=lambda _: 7)),
    "unknown-states": ("Job_List", each("state", expected=lambda _: "Hibernating")),
}
"""Of operations that have what the fault changes."""

CHECKS = {name: ("Job_GetTaskCounts", check) for name, check in ON_COUNTS.items()} | ON_OTHERS


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
    patience = 0.15 if name in HEAVY - {"gzip-bomb", "huge-body"} else 5
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
    raw = re.sub(rb"(127\.0\.0\.1|localhost):\d+", b"here", raw)
    date = re.search(rb"Date: (.{29})\r\n", raw)
    if date is not None:
        sent = parsedate_to_datetime(date[1].decode())
        if abs(sent - datetime.now(UTC)) < timedelta(seconds=60):
            raw = raw.replace(date[1], b"now", 1)
    return raw


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
            truth[operation] = alike(await fetch(simulation, url, patience=5))
        faults.set(Rule(name))
        seen = alike(await fetch(simulation, url, patience=5))
        assert (seen != truth[operation]) == (operation in CATALOGUE[name].operations), operation


async def test_what_is_no_whole_answer_passes(simulation: Simulation, faults: Faults) -> None:
    url = urls(simulation.world)["Task_Get"]
    etag = (await fetch(simulation, url)).headers["etag"]
    for name in ("truncated-json", "null-members", "gzip-bomb", "length-too-long", "hanging-body"):
        faults.set(Rule(name))
        assert (await fetch(simulation, url, {"If-None-Match": etag})).status == 304
        assert (await fetch(simulation, url.replace("/tasks/", "/tasks/no"))).status == 404


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


def without_arrays(record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: dict(zip(map(str, range(len(value))), value, strict=True))
        if isinstance(value, list)
        else value
        for name, value in record.items()
    }


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
    "next-link-no-url": lambda _: "http://[::bad:port/\0",
    "next-link-number": lambda _: 2,
    "next-link-relative": lambda url: urlsplit(url)._replace(scheme="", netloc="").geturl(),
}


@pytest.mark.parametrize("name", [fault.name for fault in PAGES])
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
        await asyncio.gather(*(fetch(simulation, url, limit=1000) for _ in range(100)))
    assert faults.played.pop("garbage") == 100 == faults.played.total()
    assert len(faults.played) > 40
    assert all("Task_Get" in CATALOGUE[name].operations for name in faults.played)


# Nobody waits for ever, and no memory fills.


@pytest.mark.parametrize("name", ["never-answering", "endless-body", "slow-body"])
async def test_who_hangs_up_is_served_no_longer(
    simulation: Simulation,
    faults: Faults,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = asyncio.all_tasks()
    faults.set(Rule(name))
    url = urls(simulation.world)["Job_Get"]
    await asyncio.gather(*(fetch(simulation, url, limit=100_000) for _ in range(3)))
    async with asyncio.timeout(1):
        while asyncio.all_tasks() - before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_server_that_ends_ends_what_hangs(old_world: World) -> None:
    faults = Faults(Rule("never-answering", count=1), Rule("endless-body"))
    clock, url = Clock(old_world.now, speed=0), urls(old_world)["Job_Get"]
    async with asyncio.timeout(5):
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
