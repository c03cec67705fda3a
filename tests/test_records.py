"""Answers with records that cannot be read, or only in part: what is lost, and what is not."""

from __future__ import annotations

import codecs
import json
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

from exporter import config
from exporter.batch import errors
from exporter.batch.client import BatchClient
from exporter.batch.models import unix_time
from exporter.collectors import pool_nodes
from exporter.collectors.preparation_release import MAX_POOLS
from exporter.exposition.body import Format
from exporter.service.service import open_service
from tests.conftest import Observed
from tests.fake_batch import FakeBatch, reply
from tests.test_client import collect

NOW = 1_767_226_000.0
PREPARATION = "/jobs/j/jobpreparationandreleasetaskstatus"
JOB = {"id": "j", "state": "active", "creationTime": "2026-01-01T00:00:00Z"}
LAST = "9999-12-31T23:59:59.9999999Z"


def running(node_id: str, **members: Any) -> dict[str, Any]:
    """A node on which the preparation task runs."""
    info = {"state": "running", "startTime": "2026-01-01T00:00:00Z", "retryCount": 0, **members}
    return {"poolId": "p", "nodeId": node_id, "jobPreparationTaskExecutionInfo": info}


@pytest.fixture
def scrape(batch: FakeBatch, make_config: Callable[..., config.Config]) -> Callable[..., Any]:
    """Poll so many rounds; all that is exposed then, name and labels with their values."""
    batch.json("/jobs", {"value": [JOB]})
    batch.json("/nodecounts", {"value": []})
    batch.json("/jobs/j/taskcounts", {"taskCounts": {"active": 1, "running": 0, "completed": 0}})
    batch.json(PREPARATION, {"value": []})

    async def scraped(rounds: int = 1, **account: Any) -> dict[str, float]:
        loaded = make_config(batch.endpoint, **account)
        async with open_service(loaded) as service:
            for _ in range(rounds):
                await service.run_once()
            service.store.count_as_read()
            text = service.exposition.body(Format.TEXT).plain + service.own_metrics(Format.TEXT, 0)
        lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    return scraped


def invalid(operation: str) -> str:
    labels = f'account="myaccount",operation="{operation}"'
    return f"azure_batch_exporter_records_invalid_total{{{labels}}}"


async def test_the_largest_date_of_dotnet_in_a_list_of_jobs_is_no_time(
    batch: FakeBatch, scrape: Callable[..., Any]
) -> None:
    info = {"startTime": "2026-01-01T00:00:01.1234567Z", "endTime": LAST}
    batch.json("/jobs", {"value": [{**JOB, "executionInfo": info}]})
    shown = await scrape()
    of_job = '{account="myaccount",job_id="j"}'
    assert shown['azure_batch_up{account="myaccount"}'] == 1
    assert shown[f"azure_batch_job_started_timestamp_seconds{of_job}"] == 1767225601.123456
    assert f"azure_batch_job_ended_timestamp_seconds{of_job}" not in shown
    assert shown[invalid("Job_List")] == 0


async def test_a_record_that_cannot_be_read_costs_no_other_one(
    batch: FakeBatch, scrape: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    bad = running("b", startTime=["not", "a", "time"], retryCount="many")
    good = running("c", startTime="2026-01-01T00:00:05Z")
    batch.json(PREPARATION, {"value": [running("a"), bad, good]})
    with caplog.at_level(logging.WARNING):
        shown = await scrape()
    of_pool = '{account="myaccount",job_id="j",pool_id="p",state="running"}'
    assert shown[f"azure_batch_job_preparation_tasks{of_pool}"] == 2
    assert shown[invalid("Job_ListPreparationAndReleaseTaskStatus")] == 1
    collector = 'account="myaccount",job_id="j",collector="preparation_release"'
    assert shown[f"azure_batch_job_scrape_success{{{collector}}}"] == 1
    (line,) = [line for line in caplog.records if "left out" in line.getMessage()]
    assert line.getMessage() == (
        "Job_ListPreparationAndReleaseTaskStatus: a record is left out:"
        " Expected `str | null`, got `array`"
        " - at `$.value[1].jobPreparationTaskExecutionInfo.startTime`"
    )
    assert line.account == "myaccount"


async def test_a_job_shows_so_many_pools_and_says_so_of_others(
    batch: FakeBatch, scrape: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [{**running("n"), "poolId": f"pool{each}"} for each in range(500)]
    long = {**running("n"), "poolId": "x" * 65}
    batch.json(PREPARATION, {"value": [long, *nodes]}, {"value": [long, *nodes[::-1]]})
    with caplog.at_level(logging.WARNING):
        shown = await scrape(rounds=2)
    of_pools = [key for key in shown if key.startswith("azure_batch_job_preparation_tasks{")]
    assert len(of_pools) == 2 * MAX_POOLS  # of two states
    assert sum(shown[key] for key in of_pools) == MAX_POOLS
    assert all("x" * 65 not in key for key in shown)
    left_out = 500 - MAX_POOLS + 1
    assert shown[invalid("Job_ListPreparationAndReleaseTaskStatus")] == 2 * left_out
    (line,) = [line for line in caplog.records if "left out" in line.getMessage()]
    assert "the job has more than 20 pools" in line.getMessage()


async def test_an_account_shows_so_many_pools_and_says_so_of_others(
    batch: FakeBatch, scrape: Callable[..., Any]
) -> None:
    pools = [
        {"poolId": f"pool{each}", "dedicated": {"idle": 1}, "lowPriority": {}}
        for each in range(pool_nodes.MAX_POOLS + 7)
    ]
    link = f"{batch.endpoint}/nodecounts?$skiptoken=2"
    first, second = pools[:1500], pools[1500:]
    batch.json("/nodecounts", {"value": first, "odata.nextLink": link}, {"value": second})
    shown = await scrape()
    idle = [key for key in shown if key.startswith("azure_batch_pool_nodes{") and '"idle"' in key]
    assert len(idle) == pool_nodes.MAX_POOLS
    assert shown[invalid("Account_ListPoolNodeCounts")] == 7


async def test_what_cannot_be_read_is_counted_each_time_and_said_once(
    batch: FakeBatch, scrape: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    odd = [running("a", exitCode=1.5), running("b", exitCode=2.5), running("c", retryCount=-1), 7]
    batch.json(PREPARATION, {"value": odd}, {"value": [running("x"), *odd]})
    with caplog.at_level(logging.WARNING):
        shown = await scrape(rounds=3)
    assert shown[invalid("Job_ListPreparationAndReleaseTaskStatus")] == 12
    said = [line.getMessage() for line in caplog.records if "left out" in line.getMessage()]
    assert len(said) == 3
    assert [text.rpartition(" - at ")[2] for text in said] == [
        "`$.value[0].jobPreparationTaskExecutionInfo.exitCode`",
        "`$.value[2].jobPreparationTaskExecutionInfo.retryCount`",
        "`$.value[3]`",
    ]


async def test_a_job_that_cannot_be_read_does_not_take_the_account_down(
    batch: FakeBatch, scrape: Callable[..., Any]
) -> None:
    odd = [{**JOB, "id": "odd", "priority": 1.5}, {"state": "active"}, None]
    batch.json("/jobs", {"value": [*odd, JOB]})
    shown = await scrape()
    assert shown['azure_batch_up{account="myaccount"}'] == 1
    assert shown['azure_batch_jobs{account="myaccount",state="active"}'] == 1
    assert shown[invalid("Job_List")] == 3


@pytest.mark.parametrize(
    ("member", "value"),
    [("startTime", LAST), ("startTime", ""), ("startTime", "soon"), ("endTime", LAST)],
)
async def test_a_time_that_is_none_costs_no_record(
    batch: FakeBatch, scrape: Callable[..., Any], member: str, value: str
) -> None:
    batch.json(PREPARATION, {"value": [running("a", **{member: value})]})
    shown = await scrape()
    of_pool = '{account="myaccount",job_id="j",pool_id="p",state="running"}'
    assert shown[f"azure_batch_job_preparation_tasks{of_pool}"] == 1
    assert shown[invalid("Job_ListPreparationAndReleaseTaskStatus")] == 0


async def test_a_time_that_one_answer_lacks_makes_no_second_run_task_or_job(
    batch: FakeBatch, scrape: Callable[..., Any]
) -> None:
    times = {"startTime": "2026-01-01T00:00:01Z", "endTime": "2026-01-01T00:00:09.5Z"}
    job = {**JOB, "creationTime": "2030-01-01T00:00:00Z"}  # since the watch began
    run = running("a", **times, state="completed", result="success")
    task = {
        "id": "t",
        "state": "completed",
        "creationTime": "2026-01-01T00:00:00Z",
        "stateTransitionTime": "2026-01-01T00:00:09.6Z",
        "executionInfo": {**times, "result": "failure"},
    }
    for path, record in (("/jobs", job), (PREPARATION, run), ("/jobs/j/tasks", task)):
        good = json.dumps({"value": [record]})
        bodies = [json.dumps({"value": []})] if path == "/jobs" else []
        for time in re.findall(r"20\d\d-[^\"]*", good):
            bodies += [good, good.replace(time, "")]
        batch.on(path, *map(reply, (*bodies, good)))
    rule = {"id_regex": ".*", "collect": ["preparation_release", "tasks"]}
    settings = {"idle_interval": "0s", "resync_interval": "0s"}
    shown = await scrape(rounds=12, jobs=[rule], defaults=settings)
    completed = "azure_batch_job_preparation_tasks_completed_total"
    of_job = 'account="myaccount",job_id="j"'
    assert shown[f'{completed}{{{of_job},pool_id="p",result="success"}}'] == 1
    assert shown[f'azure_batch_job_tasks_failed_total{{{of_job},category="unknown"}}'] == 1


@pytest.mark.parametrize(
    "body",
    ['{"value": null}', codecs.BOM_UTF8 + b'{"value": []}'],
    ids=["null", "byte order mark"],
)
async def test_a_page_of_null_is_empty_and_a_byte_order_mark_is_skipped(
    batch: FakeBatch, client: BatchClient, observed: Observed, body: str | bytes
) -> None:
    batch.on("/jobs", reply(body))
    assert await collect(client.list_jobs()) == []
    assert observed.requests == [("Job_List", "200")]


async def test_what_is_no_page_does_not_end_all_jobs(batch: FakeBatch, client: BatchClient) -> None:
    batch.on("/jobs", reply('{"status": "ok"}'))
    with pytest.raises(errors.InvalidResponse, match="missing required field `value`"):
        await collect(client.list_jobs())


async def test_pages_go_on_behind_one_with_a_record_that_cannot_be_read(
    batch: FakeBatch, client: BatchClient, observed: Observed
) -> None:
    link = f"{batch.endpoint}/jobs?$skiptoken=2"
    batch.json("/jobs", {"value": [7], "odata.nextLink": link}, {"value": [{"id": "b"}, {}]})
    assert [job.id for job in await collect(client.list_jobs())] == ["b"]
    assert observed.problems == [
        ("Job_List", "Expected `object`, got `int` - at `$.value[0]`"),
        ("Job_List", "Object missing required field `id` - at `$.value[1]`"),
    ]


async def test_a_text_that_was_cut_within_a_character_costs_only_that_character(
    batch: FakeBatch, client: BatchClient, observed: Observed
) -> None:
    texts = [r"a\ud83d", r"\ude00b", r"\ud83d\ude00 \\ud83d", r"\uD83D\uD83D\uDE00"]
    jobs = ",".join(
        f'{{"id": "{number}", "displayName": "{text}"}}' for number, text in enumerate(texts)
    )
    batch.on("/jobs", reply(f'{{"value": [{jobs}]}}'))
    names = [job.display_name for job in await collect(client.list_jobs())]
    assert names == ["a\ufffd", "\ufffdb", "\U0001f600 \\ud83d", "\ufffd\U0001f600"]
    assert observed.problems == []


@pytest.mark.parametrize("body", ["[]", '{"value": {}}', '{"value": [{"id": "a"}', "7"])
async def test_what_is_no_page_is_no_answer(
    batch: FakeBatch, client: BatchClient, body: str
) -> None:
    batch.on("/jobs", reply(body))
    with pytest.raises(errors.InvalidResponse, match="Job_List: "):
        await collect(client.list_jobs())


async def test_a_single_object_with_a_bad_member_is_no_answer_and_says_which(
    batch: FakeBatch, client: BatchClient
) -> None:
    batch.json("/jobs/j", {**JOB, "priority": 1.5})
    with pytest.raises(errors.InvalidResponse, match=r"Job_Get: .* at `\$\.priority`"):
        await client.get_job("j")
    batch.json("/jobs/j", {**JOB, "executionInfo": {"endTime": LAST}})
    assert (await client.get_job("j")).id == "j"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-01T00:00:00.9999999Z", 1767225600.999999),
        ("2026-01-01T00:00:01.1234567Z", 1767225601.123456),
        ("2026-12-31T23:59:59.9999999+00:00", 1798761599.999999),
        (LAST, None),
        ("0001-01-01T00:00:00Z", None),
        ("2024-13-45T25:61:61Z", None),
        ("", None),
    ],
)
def test_fractions_are_cut_and_what_is_no_time_is_none(text: str, seconds: float | None) -> None:
    assert unix_time(text) == seconds
