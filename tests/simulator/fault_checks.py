"""What a client sees of each fault but those of lists; `true` is the answer without it."""

import gzip
import json
import math
import zlib
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from exporter.simulator.faults import connections, sizes
from exporter.simulator.faults import json_members as members

from .conftest import VERSION
from .raw_client import Seen

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


def date_of(seen: Seen, header: str = "date") -> datetime:
    return parsedate_to_datetime(seen.headers[header])


def retry_at_a_date(seen: Seen, _: Seen) -> None:
    assert seen.status == 429
    assert date_of(seen, "retry-after") - date_of(seen) == timedelta(seconds=5)


def dated(hours: float) -> Check:
    def check(seen: Seen, true: Seen) -> None:
        assert date_of(seen) - date_of(true) == timedelta(hours=hours)
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
    assert connections.PACE > 0.5  # so that one byte is all that can have come
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


def without_arrays(record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: dict(zip(map(str, range(len(value))), value, strict=True))
        if isinstance(value, list)
        else value
        for name, value in record.items()
    }


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


def record_flood(seen: Seen, _: Seen) -> None:
    encoded("gzip")(seen, seen)
    assert len(seen.body) < 20_000
    assert gzip.decompress(seen.body).count(b"{}") == sizes.RECORDS


def value_flood(seen: Seen, true: Seen) -> None:
    encoded("gzip")(seen, seen)
    assert len(seen.body) < 20_000
    found = json.loads(gzip.decompress(seen.body))
    assert len(found.pop("addedLater")) == sizes.MEMBERS
    assert found == true.json


def tiny_chunks(seen: Seen, true: Seen) -> None:
    assert seen.headers["transfer-encoding"] == "chunked"
    assert seen.rest.startswith(b"2\r\n  \r\n" * sizes.TINY_CHUNKS)
    assert true.body in seen.rest


def trailers(seen: Seen, true: Seen) -> None:
    assert "retry-after" not in seen.headers
    _, _, rest = seen.rest.partition(true.body)
    assert rest.startswith(b"\r\n0\r\nRetry-After: 900\r\n")


def continued(seen: Seen, true: Seen) -> None:
    assert seen.raw.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n")
    assert seen.raw.endswith(true.body)


def gzip_in_capitals(seen: Seen, true: Seen) -> None:
    assert b"Content-Encoding: GZIP \r\n" in seen.raw
    assert gzip.decompress(seen.body) == true.body


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
    "continued": continued,
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
    "gzip-in-capitals": gzip_in_capitals,
    "hanging-body": cut("silence"),
    "hanging-headers": in_headers,
    "header-flood": header_flood,
    "html-instead": page(200, b"Sign in"),
    "huge-body": huge,
    "huge-integers": counts(lambda _: 10**400),
    "infinite-numbers": counts(lambda _: math.inf),
    "insufficient-permissions": refused(403, "InsufficientAccountPermissions"),
    "internal-error": refused(500, "InternalError"),
    "invalid-json": no_json(json.JSONDecodeError, b"{\r\n  'odata.metadata':"),
    "invalid-query": refused(400, "InvalidQueryParameterValue"),
    "invalid-state": refused(409, "OperationInvalidForCurrentState"),
    "invalid-utf8": no_json(UnicodeDecodeError, b'{\r\n  "odata.metadata":"\xc3\x28\xffhttp'),
    "job-being-deleted": refused(409, "JobBeingDeleted"),
    "job-being-terminated": refused(409, "JobBeingTerminated"),
    "job-not-found": refused(404, "JobNotFound"),
    "job-not-found-once": refused(404, "JobNotFound"),
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
    "record-flood": record_flood,
    "redirect-to-itself": redirected(307, away=False),
    "request-timeout": refused(408, "RequestTimeout"),
    "reset-midway": cut("reset"),
    "server-busy": refused(503, "ServerBusy"),
    "server-busy-retry-after": refused(503, "ServerBusy", retry_after="5"),
    "slow-body": slowly,
    "teapot": garbage,
    "temporary-redirect": redirected(307),
    "tiny-chunks": tiny_chunks,
    "token-expired": refused(401, "AuthenticationFailed", www_authenticate="Bearer"),
    "token-expired-once": refused(401, "AuthenticationFailed", www_authenticate="Bearer"),
    "too-many-requests": refused(429, "TooManyRequests", retry_after="5"),
    "too-many-requests-date": retry_at_a_date,
    "too-many-requests-hours": refused(429, "TooManyRequests", retry_after="21600"),
    "too-many-requests-huge": refused(429, "TooManyRequests", retry_after="9" * 20),
    "too-many-requests-negative": refused(429, "TooManyRequests", retry_after="-5"),
    "too-many-requests-nonsense": refused(429, "TooManyRequests", retry_after="when it suits us"),
    "too-many-requests-silent": refused(429, "TooManyRequests"),
    "trailers": trailers,
    "truncated-gzip": broken_gzip(EOFError),
    "truncated-json": body(lambda true: true[: len(true) // 2]),
    "two-documents": body(lambda true: true + true),
    "unauthorized": nothing(401),
    "unknown-encoding": unknown_encoding,
    "unknown-members": more_members,
    "unsupported-version": refused(400, "InvalidQueryParameterValue"),
    "value-flood": value_flood,
    "utf16": body(lambda true: true.decode().encode("utf-16")),
}
"""Of Job_GetTaskCounts."""


def more_pools(number: int) -> Check:
    """So many records behind the true ones, each of another pool."""

    def check(seen: Seen, true: Seen) -> None:
        found, right = seen.json["value"], true.json["value"]
        assert found[: len(right)] == right
        assert len({record["poolId"] for record in found[len(right) :]}) == number

    return check


ON_OTHERS: dict[str, tuple[str, Check]] = {
    "foreign-pools": ("Job_ListPreparationAndReleaseTaskStatus", more_pools(500)),
    "pool-flood": ("Job_ListPreparationAndReleaseTaskStatus", more_pools(8000)),
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
