"""The client against the wire as it is; each fact of the service has its test."""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
import math
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from aiohttp import web

from exporter.batch import errors, models, odata
from exporter.batch.auth import Auth, string_to_sign
from exporter.batch.client import MAX_EMPTY_PAGES, MAX_LINK, MAX_RECORDS, SLICE, BatchClient
from exporter.batch.failure_codes import category
from exporter.batch.models import MAX_PAGE, FailureInfo, duration_seconds, unix_time
from exporter.batch.spellings import Spellings
from exporter.batch.transport import MAX_VALUES
from tests.conftest import Observed
from tests.fake_batch import REQUEST_ID as FAKE_REQUEST_ID
from tests.fake_batch import FakeBatch, batch_error, fake_batch, reply


async def collect(pages: AsyncIterator[tuple[Any, ...]]) -> list[Any]:
    return [item async for page in pages for item in page]


PREPARATION = "/jobs/j/jobpreparationandreleasetaskstatus"


# Requests


async def test_each_request_is_signed_and_carries_an_id_of_its_own(
    batch: FakeBatch, client: BatchClient
) -> None:
    batch.json("/jobs/j/taskcounts", {"taskCounts": {"active": 1}})
    await client.get_task_counts("j")
    await client.get_task_counts("j")
    first, second = batch.requests
    assert first.raw_path == "/jobs/j/taskcounts?api-version=2024-07-01.20.0&timeout=30"
    assert first.headers["client-request-id"] != second.headers["client-request-id"]
    uuid.UUID(first.headers["client-request-id"])
    assert first.headers["Authorization"].startswith("SharedKey myaccount:")
    assert first.headers["ocp-date"].endswith(" GMT")
    assert first.headers["User-Agent"].startswith("azure-batch-exporter/")


async def test_filter_and_select_are_sent_percent_encoded_and_signed_as_sent(
    batch: FakeBatch, client: BatchClient
) -> None:
    batch.json("/jobs", {"value": []})
    await collect(client.list_jobs("startswith(id, 'a+b') and state eq 'active'"))
    (request,) = batch.requests
    assert "+" not in request.raw_path
    assert "$filter=startswith%28id%2C%20%27a%2Bb%27%29%20and" in request.raw_path
    assert "$select=id%2CdisplayName%2Cstate%2C" in request.raw_path
    signed = string_to_sign("myaccount", batch.endpoint + request.raw_path, "")
    assert "\n$filter:startswith(id, 'a+b') and state eq 'active'\n" in signed


@pytest.mark.parametrize("job_id", ["schedule:job-1", "with space", "a/b?c#d", "ümlaut%41"])
async def test_job_ids_are_percent_encoded_in_the_path(
    batch: FakeBatch, client: BatchClient, job_id: str
) -> None:
    await client_error(client.get_job(job_id))
    (request,) = batch.requests
    path = request.raw_path.partition("?")[0]
    assert unquote(path.removeprefix("/jobs/")) == job_id
    assert path.count("/") == 2


async def client_error(awaitable: Any) -> errors.PollError:
    with pytest.raises(errors.PollError) as caught:
        await awaitable
    return caught.value


def refused_parameter(name: str, code: str = "InvalidQueryParameterValue") -> Any:
    values = [
        {"key": "QueryParameterName", "value": name},
        {"key": "QueryParameterValue", "value": "2019-01-01"},
    ]
    text = "Value for one of the query parameters specified in the request URI is invalid."
    return batch_error(400, code, text, values)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refused_parameter("api-version"), errors.UnsupportedVersion),
        (refused_parameter("x", "UnsupportedRequestVersion"), errors.UnsupportedVersion),
        (refused_parameter("$filter"), errors.ServiceError),
        (refused_parameter("api-version", "OutOfRangeInput"), errors.ServiceError),
    ],
)
async def test_a_version_that_the_service_does_not_have_is_the_accounts_trouble(
    batch: FakeBatch, client: BatchClient, answer: Any, kind: type
) -> None:
    batch.on("/jobs/j", answer)
    client.deadline = math.inf
    error = await client_error(client.get_job("j"))
    assert type(error) is kind
    assert error.account_wide == (kind is errors.UnsupportedVersion)
    assert len(batch.requests) == 1  # it is not tried again


async def test_an_error_has_the_ids_by_which_support_finds_its_request(
    batch: FakeBatch, client: BatchClient
) -> None:
    answers = {
        "refused": (batch_error(403, "Forbidden", "No."), FAKE_REQUEST_ID),
        "nonsense": (reply("{", headers={"request-id": "abc-1"}), "abc-1"),
        "hostile": (reply("", 404, {"request-id": 'x" y=z'}), None),
        "long": (reply("", 404, {"request-id": "x" * 65}), None),
        "none": (reply("", 404), None),
    }
    for job_id, (answer, expected) in answers.items():
        batch.on(f"/jobs/{job_id}", answer)
        error = await client_error(client.get_job(job_id))
        sent = f"client-request-id {batch.requests[-1].headers['client-request-id']}"
        assert error.trace == (f"request-id {expected}, {sent}" if expected else sent)


async def test_a_refusal_says_whether_other_requests_succeed(
    batch: FakeBatch, client: BatchClient
) -> None:
    batch.on("/jobs/j", batch_error(403, "Forbidden", "No."))
    batch.json("/jobs", {"value": []})
    for expected in (False, True):
        error = await client_error(client.get_job("j"))
        assert isinstance(error, errors.Forbidden)
        assert error.others_succeed == expected
        await collect(client.list_jobs())


@pytest.mark.parametrize(("request_timeout", "sent"), [(0.5, "1"), (7.9, "7"), (300.0, "30")])
async def test_the_service_is_told_for_how_long_somebody_waits(
    batch: FakeBatch, client: BatchClient, sent: str
) -> None:
    batch.json("/jobs", {"value": []})
    await collect(client.list_jobs())
    assert batch.requests[0].query["timeout"] == sent


# Paging


async def test_next_links_are_followed_byte_for_byte(batch: FakeBatch, client: BatchClient) -> None:
    token = "WATV2:DCWT%5EkleN/1l65==:1$1"
    link = f"{batch.endpoint}/jobs?api-version=2024-07-01.20.0&$skiptoken={token}"
    batch.json(
        "/jobs",
        {"value": [{"id": "a"}], "odata.nextLink": link},
        {"value": [], "odata.nextLink": link + "2"},  # a page may be empty and not the last
        {"value": [{"id": "b"}]},
    )
    assert [job.id for job in await collect(client.list_jobs())] == ["a", "b"]
    assert [request.raw_path for request in batch.requests[1:]] == [
        link.removeprefix(batch.endpoint),
        link.removeprefix(batch.endpoint) + "2",
    ]


async def test_a_next_link_to_another_origin_is_not_followed(
    batch: FakeBatch, client: BatchClient
) -> None:
    async with fake_batch() as elsewhere:
        for link in (
            f"{elsewhere.endpoint}/jobs",
            batch.endpoint.replace("http:", "https:") + "/jobs",
            batch.endpoint.replace("127.0.0.1", "localhost") + "/jobs",
            "/jobs?$skiptoken=relative",
            "http://[broken/jobs",
        ):
            batch.json("/jobs", {"value": [], "odata.nextLink": link})
            with pytest.raises(errors.InvalidResponse, match="another origin"):
                await collect(client.list_jobs())
        assert elsewhere.requests == []


async def test_a_page_with_more_records_than_the_api_sends_is_refused(
    batch: FakeBatch, client: BatchClient
) -> None:
    for number, path in ((MAX_PAGE, "/jobs"), (MAX_PAGE, PREPARATION)):
        batch.json(path, {"value": [{"id": str(each)} for each in range(number)]})
    assert len(await collect(client.list_jobs())) == MAX_PAGE
    listing = client.list_preparation_and_release_task_status
    assert len(await collect(listing("j"))) == MAX_PAGE
    batch.json(PREPARATION, {"value": [{}] * (MAX_PAGE + 1)})
    with pytest.raises(errors.InvalidResponse, match=f"array` of length <= {MAX_PAGE}"):
        await collect(listing("j"))
    # One that cannot be read makes no difference: the page is too long all the same.
    batch.json("/jobs", {"value": [{"id": "a"}] * MAX_PAGE + [7]})
    with pytest.raises(errors.InvalidResponse, match=f"array` of length <= {MAX_PAGE}"):
        await collect(client.list_jobs())


async def test_an_answer_with_too_many_values_is_refused_before_it_is_decoded(
    batch: FakeBatch, client: BatchClient
) -> None:
    many = [{}] * (MAX_VALUES + 2)
    counts = {"taskCounts": {"active": 1}}
    batch.json("/jobs", {"value": [{"id": "a", "metadata": many}]})
    batch.json("/jobs/j", {"id": "j", "metadata": many})
    batch.json("/jobs/j/taskcounts", {**counts, "unknown": many})
    batch.json(
        "/nodecounts",
        {
            "value": [
                {"poolId": "p", "dedicated": dict.fromkeys(map(str, range(MAX_VALUES + 2)), 1)}
            ]
        },
    )
    text = f"more than {MAX_VALUES} values"
    for asked in (client.list_jobs(), client.list_pool_node_counts()):
        with pytest.raises(errors.InvalidResponse, match=text):
            await collect(asked)
    for waited in (client.get_job("j"), client.get_task_counts("j")):
        with pytest.raises(errors.InvalidResponse, match=text):
            await waited
    batch.on("/jobs/j", reply({"code": "Busy", "values": many}, 409))
    error = await client_error(client.get_job("j"))
    assert str(error) == "HTTP 409 Conflict"


async def test_commas_and_brackets_in_texts_are_no_values(
    batch: FakeBatch, client: BatchClient
) -> None:
    metadata = [{"name": "arguments", "value": 'a,"[{\\\\' * (MAX_VALUES // 2)}]
    batch.json("/jobs", {"value": [{"id": "a", "metadata": metadata}]})
    (job,) = await collect(client.list_jobs())
    assert job.id == "a"


async def test_a_page_comes_in_slices_between_which_others_have_their_turn(
    batch: FakeBatch, client: BatchClient
) -> None:
    batch.json("/jobs", {"value": [{"id": str(each)} for each in range(2 * SLICE + 1)]})
    sizes, turns = [], 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task, seen = asyncio.create_task(other()), []
    async for page in client.list_jobs():
        sizes.append(len(page))
        seen.append(turns)
    task.cancel()
    assert sizes == [SLICE, SLICE, 1]
    assert seen[0] < seen[1] < seen[2]


async def test_a_next_link_may_be_so_long_and_no_longer(
    batch: FakeBatch, client: BatchClient
) -> None:
    start = f"{batch.endpoint}/jobs?$skiptoken="
    for length in (4000, MAX_LINK + 1):
        link = start + "x" * (length - len(start))
        batch.json("/jobs", {"value": [], "odata.nextLink": link}, {"value": [{"id": "a"}]})
        if length <= MAX_LINK:
            assert len(await collect(client.list_jobs())) == 1
        else:
            with pytest.raises(errors.InvalidResponse, match="longer than 8192"):
                await collect(client.list_jobs())


async def test_a_list_without_end_ends(batch: FakeBatch, client: BatchClient) -> None:
    records = [{}] * MAX_PAGE
    pages = 0

    async def page(request: web.Request) -> web.StreamResponse:
        nonlocal pages
        pages += 1
        link = f"{batch.endpoint}{PREPARATION}?page={pages}"
        return await reply({"value": records, "odata.nextLink": link})(request)

    batch.on(PREPARATION, page)
    with pytest.raises(errors.TooLarge, match=f"more than {MAX_RECORDS} records"):
        async for _ in client.list_preparation_and_release_task_status("j"):
            pass
    assert pages == MAX_RECORDS // MAX_PAGE + 1


async def test_next_links_that_go_round_in_a_circle_come_to_an_end(
    batch: FakeBatch, client: BatchClient
) -> None:
    one, two = (f"{batch.endpoint}/jobs?$skiptoken={number}" for number in (1, 2))
    batch.json(
        "/jobs",
        {"value": [], "odata.nextLink": one},
        {"value": [], "odata.nextLink": two},
        {"value": [], "odata.nextLink": one},
    )
    with pytest.raises(errors.InvalidResponse, match="in a circle"):
        await collect(client.list_jobs())
    assert len(batch.requests) == 3


async def test_pages_without_records_come_to_an_end(batch: FakeBatch, client: BatchClient) -> None:
    links = [f"{batch.endpoint}/jobs?$skiptoken={number}" for number in range(1000)]
    batch.json("/jobs", *({"value": [], "odata.nextLink": link} for link in links))
    with pytest.raises(errors.InvalidResponse, match="without records"):
        await collect(client.list_jobs())
    assert len(batch.requests) == MAX_EMPTY_PAGES + 1


@pytest.mark.parametrize("count", [-1, 2**31, 10**400])
async def test_a_count_that_cannot_be_one_is_no_answer_and_no_record(
    batch: FakeBatch, client: BatchClient, count: int
) -> None:
    batch.json("/jobs/a/taskcounts", {"taskCounts": {"active": count}})
    pools = [
        {"poolId": name, "dedicated": {"idle": idle}} for name, idle in (("p", count), ("q", 1))
    ]
    batch.json("/nodecounts", {"value": pools})
    with pytest.raises(errors.InvalidResponse):
        await client.get_task_counts("a")
    assert [pool.pool_id for pool in await collect(client.list_pool_node_counts())] == ["q"]


async def test_node_counts_are_asked_for_without_maxresults(
    batch: FakeBatch, client: BatchClient, official: Callable[[str], Any]
) -> None:
    batch.json("/nodecounts", official("AccountListPoolNodeCounts"))
    pools = await collect(client.list_pool_node_counts())
    assert [pool.pool_id for pool in pools] == ["pool1", "pool2", "pool3"]
    assert pools[2].low_priority["running"] == 4
    assert "maxresults" not in batch.requests[0].raw_path


# Answers


@pytest.mark.parametrize(
    "conflict",
    [
        "JobPreparationTaskOrReleaseTaskNotSpecified",
        "JobPreparationTaskNotSpecified",
        "JobReleaseTaskNotSpecified",
    ],
)
async def test_a_job_without_preparation_and_release_is_told_by_each_of_its_codes(
    batch: FakeBatch, client: BatchClient, conflict: str
) -> None:
    batch.on(PREPARATION, batch_error(409, conflict, "The specified job does not have either."))
    with pytest.raises(errors.TaskNotConfigured):
        await collect(client.list_preparation_and_release_task_status("j"))


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (404, "JobNotFound", errors.JobGone),
        (409, "JobBeingDeleted", errors.JobGone),
        (404, "TaskNotFound", errors.TaskGone),
        (404, "PoolNotFound", errors.ServiceError),
        (409, "JobCompleted", errors.ServiceError),
        (401, "Unauthorized", errors.AuthenticationFailed),
        (403, "AuthenticationFailed", errors.AuthenticationFailed),
        (403, "InsufficientAccountPermissions", errors.Forbidden),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.ServiceError),
        (503, "ServerBusy", errors.ServiceError),
    ],
)
async def test_errors_of_the_service_are_told_apart(
    batch: FakeBatch, client: BatchClient, observed: Observed, status: int, name: str, kind: type
) -> None:
    batch.on("/jobs/j", batch_error(status, name, "Something is the matter."))
    error = await client_error(client.get_job("j"))
    assert type(error) is kind
    assert str(error) == f"HTTP {status} {name} Something is the matter."
    assert isinstance(error, errors.ServiceError)
    assert observed.requests == [("Job_Get", str(status))]


async def test_the_text_of_an_error_has_its_values_and_neither_request_id_nor_time(
    batch: FakeBatch, client: BatchClient, recorded: Callable[[str], Any]
) -> None:
    (conflict,) = recorded("prep_release_409_2024-02-01.19.0")["Entries"]
    batch.on(PREPARATION, reply(conflict["ResponseBody"], 409))
    error = await client_error(collect(client.list_preparation_and_release_task_status("j")))
    assert isinstance(error, errors.ServiceError)
    assert error.message == (
        "The specified job does not have either job preparation task or job release task."
    )
    values = [{"key": "Reason", "value": "MaxResults cannot be less than 1"}]
    batch.on("/jobs/j", batch_error(400, "InvalidQueryParameterValue", "Bad.", values))
    error = await client_error(client.get_job("j"))
    assert str(error) == (
        "HTTP 400 InvalidQueryParameterValue Bad. (Reason: MaxResults cannot be less than 1)"
    )


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (502, "<html>Bad gateway</html>"),
        (500, ""),
        (403, "null"),
        (404, "[]"),
        (404, "<html>Not found</html>"),
        (400, b"\xff\xfe"),
        (302, ""),
        (204, ""),
    ],
)
async def test_an_answer_that_is_no_batch_error_is_known_by_its_status(
    batch: FakeBatch, client: BatchClient, observed: Observed, status: int, body: str | bytes
) -> None:
    batch.on("/jobs/j", reply(body, status, {"Location": "/elsewhere"}))
    error = await client_error(client.get_job("j"))
    assert type(error) in (errors.ServiceError, errors.Forbidden)
    assert str(error).startswith(f"HTTP {status}")
    assert observed.requests == [("Job_Get", str(status))]
    assert len(batch.requests) == 1  # a redirect is not followed: credentials stay here


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html></html>",
        '{"taskCounts": {"active": 1',
        "[]",
        "null",
        "{}",
        '{"taskCounts": null}',
        '{"taskCounts": {}}',
        '{"taskCounts": {"active": "many"}}',
        '{"taskCounts": {"active": 1e400}}',
        '{"taskCounts": ' + "[" * 100_000 + "]" * 100_000 + "}",
        b'{"taskCounts": "\xff"}',
    ],
    ids=lambda body: str(body)[:40] or "empty",
)
async def test_an_answer_that_is_not_as_documented_is_invalid(
    batch: FakeBatch, client: BatchClient, body: str | bytes
) -> None:
    batch.on("/jobs/j/taskcounts", reply(body))
    error = await client_error(client.get_task_counts("j"))
    assert type(error) is errors.InvalidResponse


@pytest.mark.parametrize("request_timeout", [0.15])
async def test_the_timeout_covers_the_body(
    batch: FakeBatch, client: BatchClient, observed: Observed
) -> None:
    released = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"id":')
        await released.wait()
        return response

    batch.on("/jobs/j", drip)
    error = await client_error(client.get_job("j"))
    released.set()
    assert type(error) is errors.RequestTimeout
    assert observed.requests == [("Job_Get", "timeout")]


async def test_a_broken_connection_is_told_as_such(
    batch: FakeBatch, client: BatchClient, observed: Observed
) -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    batch.on("/jobs/j", hang_up)
    error = await client_error(client.get_job("j"))
    assert type(error) is errors.ConnectionFailed
    assert observed.requests == [("Job_Get", "connection")]


def late_by(seconds: float) -> Callable[[], float]:
    """A clock that stands so many seconds after the one of the service in the next test."""
    date = dt.datetime(2024, 1, 5, 7, 10, 21, tzinfo=dt.UTC)
    return lambda: date.timestamp() + seconds


@pytest.mark.parametrize(
    ("now", "offset"),
    [
        (late_by(0.0), 0.0),
        (late_by(0.999), 0.0),
        (late_by(1.2), 0.0),
        (late_by(90.5), -90.0),
        (late_by(-29.5), 30.0),
    ],
    ids=["same", "0.999 s", "1.2 s", "90.5 s", "-29.5 s"],
)
async def test_clocks_differ_where_it_is_more_than_the_header_date_may_lack(
    batch: FakeBatch, client: BatchClient, offset: float
) -> None:
    headers = {"Date": "Fri, 05 Jan 2024 07:10:21 GMT"}
    batch.on("/jobs/j", reply({"id": "j"}, headers=headers))
    for _ in range(2):
        await client.get_job("j")
    assert client.clock.offset_for_changes == offset


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"Retry-After": "30"}, [30.0]),
        (503, {"Retry-After": "7"}, [7.0]),
        (
            429,
            {
                "Date": "Fri, 05 Jan 2024 07:10:21 GMT",
                "Retry-After": "Fri, 05 Jan 2024 07:10:33 GMT",
            },
            [12.0],
        ),
        (429, {"Retry-After": "soon"}, [5.0]),
        (429, {}, [5.0]),
        (503, {}, []),
    ],
    ids=str,
)
async def test_the_account_pauses_as_the_service_asks(
    batch: FakeBatch,
    client: BatchClient,
    pauses: list[float],
    status: int,
    headers: dict[str, str],
    seconds: list[float],
) -> None:
    batch.on("/jobs/j", batch_error(status, "TooManyRequests", "Too many.", headers=headers))
    await client_error(client.get_job("j"))
    assert pauses == pytest.approx(seconds, abs=0.1)
    if seconds:
        assert type(await client_error(client.get_job("j"))) is errors.Throttled
        assert len(batch.requests) == 1


def test_every_error_of_a_poll_has_a_reason() -> None:
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        assert issubclass(kind, errors.PollError)
        assert "reason" in vars(kind)


# Models


def test_members_are_optional_null_is_absent_and_what_is_new_is_skipped(
    official: Callable[[str], Any],
) -> None:
    status = msgspec.json.decode(
        b'{"poolId": null, "futureMember": [{}], "jobPreparationTaskExecutionInfo":'
        b' {"state": "completed", "retryCount": null, "containerInfo": {"containerId": 1}}}',
        type=models.NodeTaskStatus,
    )
    assert status.preparation is not None
    assert status.preparation.state == "completed"
    assert status.release is None


@pytest.mark.parametrize(
    ("body", "pool_id"),
    [
        ({"executionInfo": {"poolId": "guid"}, "poolInfo": {"autoPoolSpecification": {}}}, "guid"),
        ({"executionInfo": {"poolId": "real"}, "poolInfo": {"poolId": "asked"}}, "real"),
        ({"executionInfo": {}, "poolInfo": {"poolId": "asked"}}, "asked"),
        ({"poolInfo": {"autoPoolSpecification": {"poolLifetimeOption": "job"}}}, ""),
        ({}, ""),
    ],
)
async def test_the_pool_of_a_job_is_the_one_it_runs_on(
    batch: FakeBatch, client: BatchClient, body: dict[str, Any], pool_id: str
) -> None:
    batch.json("/jobs/j", {"id": "j", **body})
    assert (await client.get_job("j")).pool_id == pool_id


async def test_a_task_that_never_ran_and_a_recorded_list_are_read(
    batch: FakeBatch, client: BatchClient, recorded: Callable[[str], Any]
) -> None:
    batch.on(
        "/jobs/j/tasks", reply(recorded("terminated_tasks_list_2018-12-01.8.0")["ResponseBody"])
    )
    first, second = await collect(client.list_tasks("j"))
    assert (first.id, second.id) == ("testTask1", "testTask2")
    assert first.execution_info.start_time is None
    assert first.execution_info.exit_code is None
    assert first.execution_info.failure_info.code == "TaskEnded"
    assert category(first.execution_info.failure_info) == "usererror"
    assert first.node_info == models.NodeInfo()


async def test_int64_in_quotes_are_numbers(batch: FakeBatch, client: BatchClient) -> None:
    stats = {
        "userCPUTime": "PT1M0.5S",
        "readIOps": "123456789012",
        "writeIOps": "0",
        "readIOGiB": 0.0,
        "wallClockTime": "P10675199DT2H48M5.4775807S",
    }
    batch.json("/jobs/j/tasks/t", {"id": "t", "requiredSlots": 2, "stats": stats})
    task = await client.get_task("j", "t")
    assert task.stats is not None
    assert task.stats.read_iops == 123456789012
    assert duration_seconds(task.stats.user_cpu_time or "") == 60.5
    assert duration_seconds(task.stats.wall_clock_time or "") == math.inf


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT15M", 900),
        ("P7D", 604800),
        ("PT1H", 3600),
        ("P1DT2H3M4.5S", 93784.5),
        ("-PT1S", -1),
        ("P10675199DT2H48M5.4775807S", math.inf),
    ],
)
def test_durations_of_the_service_are_read(text: str, seconds: float) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "P", "PT", "1H", "P1Y", "PT1M1H"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration_seconds(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2025-09-03T22:41:21.1218621Z", 1756939281.121862),
        ("2025-09-03T22:41:21.121862Z", 1756939281.121862),
        ("2025-09-03T22:41:21.1Z", 1756939281.1),
        ("2025-09-03T22:41:21Z", 1756939281.0),
        ("2025-09-03T22:41:21", 1756939281.0),
        ("0001-01-01T00:00:00Z", None),  # .NET's way to say that there is none
        ("9999-12-31T23:59:59Z", None),
    ],
)
async def test_times_are_read_with_trimmed_fractions(
    batch: FakeBatch, client: BatchClient, text: str, seconds: float | None
) -> None:
    batch.json("/jobs/j", {"id": "j", "creationTime": text})
    assert unix_time((await client.get_job("j")).creation_time) == seconds


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (FailureInfo("UserError", "FailureExitCode"), ("usererror", "FailureExitCode")),
        (FailureInfo("usererror", "failureexitcode"), ("usererror", "FailureExitCode")),
        (FailureInfo("ServerError", "DiskFull"), ("servererror", "DiskFull")),
        (FailureInfo("UserError", "AllocationTimedOut"), ("usererror", "AllocationTimedout")),
        (FailureInfo("CosmicError", "BrandNew\nCode"), ("unknown", "other")),
        (FailureInfo("other", "BrandNew"), ("unknown", "BrandNew")),
        (FailureInfo(), ("unknown", "other")),
        (None, ("unknown", "other")),
    ],
)
def test_categories_and_codes_are_compared_without_regard_to_case(
    given: FailureInfo | None, expected: tuple[str, str]
) -> None:
    found = Spellings().code(given.code if given else None)
    assert (category(given), found) == expected


def test_literals_are_written_as_the_filter_grammar_wants_them() -> None:
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    assert odata.literal(moment) == "DateTime'2026-01-02T02:04:05.000600Z'"
    assert odata.literal("it's") == "'it''s'"
    assert odata.any_of(["a", "b"]) == "(a) or (b)"
    assert odata.any_of(["a"]) == "a"


# Trying again


def in_time(client: BatchClient, seconds: float = 1.0) -> BatchClient:
    return client.until(asyncio.get_running_loop().time() + seconds)


async def broken(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


@pytest.mark.parametrize(
    "failing",
    [
        batch_error(500, "InternalError", "no"),
        batch_error(503, "ServerBusy", "busy"),
        batch_error(408, "RequestTimeout", "late"),
        reply("<html>Bad Gateway</html>", 502),
        batch_error(429, "TooManyRequests", "slow down", headers={"Retry-After": "0"}),
        broken,
    ],
    ids=["500", "503", "408", "502", "429", "connection"],
)
async def test_what_may_pass_is_tried_again_with_the_same_request_id(
    failing: Any, batch: FakeBatch, client: BatchClient, observed: Observed
) -> None:
    batch.on("/jobs/j", failing, failing, reply({"id": "j"}))
    assert (await in_time(client).get_job("j")).id == "j"
    # aiohttp itself repeats a request once whose kept-alive connection was closed.
    assert observed.retries in (["Job_Get"], ["Job_Get"] * 2)
    assert len(batch.requests) == 3
    assert len({request.headers["client-request-id"] for request in batch.requests}) == 1


@pytest.mark.parametrize(
    "failing",
    [
        batch_error(400, "InvalidQueryParameterValue", "no"),
        batch_error(403, "Forbidden", "no"),
        batch_error(404, "JobNotFound", "no"),
        batch_error(409, "JobBeingDeleted", "no"),
        batch_error(501, "NotImplemented", "no"),
        reply("[]"),
    ],
    ids=["400", "403", "404", "409", "501", "invalid"],
)
async def test_what_will_not_pass_is_asked_once(
    failing: Any, batch: FakeBatch, client: BatchClient, observed: Observed
) -> None:
    batch.on("/jobs/j", failing)
    await client_error(in_time(client).get_job("j"))
    assert len(batch.requests) == 1
    assert observed.retries == []


async def test_nothing_is_tried_again_past_the_deadline(
    batch: FakeBatch, client: BatchClient
) -> None:
    batch.on("/jobs/j", batch_error(500, "InternalError", "no"))
    await client_error(in_time(client, 0.005).get_job("j"))
    assert len(batch.requests) == 1  # the next one would have come after 0.01 s
    await client_error(in_time(client, 0.06).get_job("j"))
    assert 3 <= len(batch.requests) <= 4  # 0.01, 0.02, and 0.04 s would be too late


async def test_a_service_that_is_down_is_not_asked_several_times_as_often(
    batch: FakeBatch, client: BatchClient, observed: Observed
) -> None:
    batch.on("/jobs/j", batch_error(500, "InternalError", "no"))
    for _ in range(30):
        await client_error(in_time(client, 0.02).get_job("j"))
    assert len(observed.retries) == 20
    assert len(batch.requests) == 50


class Renewable(Auth):
    """Gives tokens that the account refuses, but for the last."""

    def __init__(self, tokens: int) -> None:
        self.tokens = [f"Bearer {number}" for number in range(tokens)]

    async def headers(self, _url: str, _e_tag: str = "", /) -> dict[str, str]:
        return {"Authorization": self.tokens[0]}

    def forget(self, headers: Any, /) -> bool:
        if len(self.tokens) == 1:
            return False
        self.tokens.remove(headers["Authorization"])
        return True


@pytest.mark.parametrize(("tokens", "asked"), [(1, 1), (2, 2), (3, 2)])
async def test_a_refused_token_is_renewed_once(
    tokens: int, asked: int, batch: FakeBatch, client: BatchClient
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        good = request.headers["Authorization"] == "Bearer 1"
        refused = batch_error(401, "AuthenticationFailed", "no")
        return await (reply({"id": "j"}) if good else refused)(request)

    batch.on("/jobs/j", answer)
    client._transport._auth = Renewable(tokens)
    if tokens == 2:
        assert (await client.get_job("j")).id == "j"
    elif tokens == 1:
        assert isinstance(await client_error(client.get_job("j")), errors.AuthenticationFailed)
    else:
        client._transport._auth = Renewable(3)
        client._transport._auth.tokens.insert(1, "Bearer bad")
        assert isinstance(await client_error(client.get_job("j")), errors.AuthenticationFailed)
    assert len(batch.requests) == asked


async def test_clocks_that_differ_are_named_where_the_service_refuses(
    batch: FakeBatch, client: BatchClient
) -> None:
    date = {"Date": "Mon, 01 Jan 2001 00:00:00 GMT"}
    batch.on("/jobs/j", batch_error(403, "AuthenticationFailed", "no", headers=date))
    error = await client_error(client.get_job("j"))
    assert "this machine's clock is" in str(error) and "s ahead of the service's" in str(error)


async def test_the_text_of_an_error_is_bounded(batch: FakeBatch, client: BatchClient) -> None:
    batch.on("/jobs/j", batch_error(400, "x" * 10_000, "y" * 1_000_000))
    assert len(str(await client_error(client.get_job("j")))) == errors.MAX_TEXT
