"""$filter, $select, $expand, maxresults, pages and versions over real HTTP."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from exporter.simulator import SCENARIOS, Clock, World, serve, ticks
from exporter.simulator.model import Job, NodeRecord, Task
from exporter.simulator.world import DEFAULT_START

from .conftest import VERSION, BatchClient

TWO_MINUTES_AGO = ticks.from_datetime(DEFAULT_START - timedelta(minutes=2))


def busy_job(world: World) -> Job:
    """The job with the most failed preparations and tasks."""

    def failures(job: Job) -> tuple[int, int]:
        records = job.records.values()
        failed = sum(record.preparation.result == "failure" for record in records)
        return failed, job.task_counts.failed

    return max(world.jobs.values(), key=failures)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("state eq 'active'", lambda job: job.state == "active"),
        ("state ne 'completed'", lambda job: job.state != "completed"),
        ("startswith(id, 'NF-')", lambda job: job.id.startswith("nf-")),
        ("executionInfo/poolId eq 'genomics'", lambda job: job.pool.id == "genomics"),
        (
            "state ne 'completed' or executionInfo/endTime gt datetime'2026-01-05T07:58:00Z'",
            lambda job: job.state != "completed" or job.ended > TWO_MINUTES_AGO,
        ),
    ],
)
async def test_jobs_are_filtered(
    client: BatchClient, text: str, wanted: Callable[[Job], bool]
) -> None:
    jobs = client.simulation.world.jobs
    expected = [job.id for job in jobs.values() if wanted(job)]
    assert [item["id"] for item in await client.items("/jobs", filter=text)] == expected
    assert 0 < len(expected) < len(jobs)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("executionInfo/result eq 'failure'", lambda task: task.result == "failure"),
        ("executionInfo/exitCode ge 1", lambda task: (task.exit_code or 0) >= 1),
        ("state eq 'completed'", lambda task: task.state == "completed"),
        (
            "lastModifiedTime lt datetime'2026-01-05T07:58:00Z'",
            lambda task: task.modified < TWO_MINUTES_AGO,
        ),
    ],
)
async def test_tasks_are_filtered(
    client: BatchClient, text: str, wanted: Callable[[Task], bool]
) -> None:
    total = 0
    for job in client.simulation.world.jobs.values():
        expected = [task.id for task in job.tasks.values() if wanted(task)]
        items = await client.items(f"/jobs/{job.id}/tasks", filter=text, select="id")
        assert [item["id"] for item in items] == expected
        total += len(expected)
    assert total > 0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "jobPreparationTaskExecutionInfo/result eq 'failure' or "
            "jobReleaseTaskExecutionInfo/result eq 'failure'",
            lambda record: (
                record.preparation.result == "failure"
                or (record.release is not None and record.release.result == "failure")
            ),
        ),
        (
            "jobPreparationTaskExecutionInfo/state eq 'Completed'",
            lambda record: record.preparation.state == "completed",
        ),
        (
            "jobReleaseTaskExecutionInfo/exitCode eq 0",
            lambda record: record.release is not None and record.release.exit_code == 0,
        ),
    ],
)
async def test_records_are_filtered(
    client: BatchClient, text: str, wanted: Callable[[NodeRecord], bool]
) -> None:
    total = 0
    for job in client.simulation.world.jobs.values():
        if job.preparation is None:
            continue
        expected = [record.node_id for record in job.records.values() if wanted(record)]
        path = f"/jobs/{job.id}/jobpreparationandreleasetaskstatus"
        items = await client.items(path, filter=text)
        assert [item["nodeId"] for item in items] == expected
        total += len(expected)
    assert total > 0


async def test_pools_and_node_counts_are_filtered(client: BatchClient) -> None:
    pools = client.simulation.world.pools
    items = await client.items("/pools", filter="enableAutoScale eq true")
    assert [item["id"] for item in items] == [p.id for p in pools.values() if p.auto_scale] != []
    items = await client.items("/nodecounts", filter="poolId eq 'Genomics'")
    assert [item["poolId"] for item in items] == ["genomics"]


@pytest.mark.parametrize(
    ("path", "query", "name", "reason"),
    [
        ("/jobs", {"filter": "priority gt 1"}, "$filter", "'priority' cannot be used"),
        ("/jobs", {"filter": "state gt 'active'"}, "$filter", "'gt' is not supported"),
        ("/jobs/{job}/tasks", {"filter": "failureInfo/code eq 'x'"}, "$filter", "cannot be used"),
        ("/jobs/{job}/tasks", {"filter": "nodeInfo/nodeId eq 'x'"}, "$filter", "cannot be used"),
        ("/nodecounts", {"filter": "poolId ne 'x'"}, "$filter", "'ne' is not supported"),
        ("/pools", {"filter": "allocationState ne 'steady'"}, "$filter", "'ne' is not supported"),
        ("/jobs", {"select": "id,nonsense"}, "$select", "'nonsense' cannot be selected"),
        ("/jobs", {"select": "executionInfo/poolId"}, "$select", "'executionInfo/poolId'"),
        ("/jobs", {"select": "ID"}, "$select", "'ID' cannot be selected"),
        ("/jobs", {"expand": "tasks"}, "$expand", "Only 'stats'"),
        ("/jobs", {"maxresults": 0}, "maxresults", "MaxResults cannot be less than 1"),
        ("/jobs", {"maxresults": -5}, "maxresults", "MaxResults cannot be less than 1"),
        ("/jobs", {"maxresults": 1001}, "maxresults", "MaxResults cannot be greater than 1000"),
        ("/jobs", {"maxresults": "many"}, "maxresults", "not a whole number"),
        ("/nodecounts", {"maxresults": 11}, "maxresults", "MaxResults cannot be greater than 10"),
        ("/jobs", {"timeout": "long"}, "timeout", "not a whole number"),
        ("/jobs", {"skiptoken": "WATV2:AAAA:1$1"}, "$skiptoken", "not valid"),
        ("/jobs", {"skiptoken": "nonsense \u00e9"}, "$skiptoken", "not valid"),
    ],
)
async def test_a_wrong_parameter_is_refused_with_its_name_value_and_the_reason(
    client: BatchClient, path: str, query: dict[str, Any], name: str, reason: str
) -> None:
    job = next(iter(client.simulation.world.jobs))
    reply = await client.ask(path.format(job=job), **query)
    assert (reply.status, reply.code) == (400, "InvalidQueryParameterValue")
    values = [(value["key"], value["value"]) for value in reply.json["values"]]
    (given,) = query.values()
    assert values[:2] == [("QueryParameterName", name), ("QueryParameterValue", str(given))]
    assert values[2][0] == "Reason"
    assert reason in values[2][1]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/jobs/{job}/taskcounts", {"select": "active"}),
        ("/jobs/{job}/taskcounts", {"maxresults": 5}),
        ("/jobs/{job}/jobpreparationandreleasetaskstatus", {"expand": "stats"}),
        ("/nodecounts", {"select": "poolId"}),
        ("/nodecounts", {"expand": "stats"}),
        ("/jobs/{job}", {"filter": "state eq 'active'"}),
        ("/jobs", {"orderby": "id"}),
    ],
)
async def test_a_parameter_that_the_operation_does_not_have_is_refused(
    client: BatchClient, path: str, query: dict[str, Any]
) -> None:
    world = client.simulation.world
    job = next(job.id for job in world.jobs.values() if job.preparation)
    reply = await client.ask(path.format(job=job), **query)
    assert (reply.status, reply.code) == (400, "UnsupportedQueryParameter")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "MissingRequiredQueryParameter"),
        ("?api-version=", "MissingRequiredQueryParameter"),
        ("?maxresults=5", "MissingRequiredQueryParameter"),
        ("?api-version=latest", "InvalidQueryParameterValue"),
        ("?api-version=2024-07-01.20", "InvalidQueryParameterValue"),
        ("?api-version=2009-01-01.1.0", "InvalidQueryParameterValue"),
        ("?api-version=2099-01-01", "InvalidQueryParameterValue"),
    ],
)
async def test_a_request_names_a_version_that_exists(
    client: BatchClient, query: str, code: str
) -> None:
    reply = await client.get(f"/jobs{query}")
    assert (reply.status, reply.code) == (400, code)


@pytest.mark.parametrize("version", ["2014-04-01.1.0", "2025-06-01", "2026-08-01", "2026-10-01"])
async def test_old_and_new_versions_are_served(client: BatchClient, version: str) -> None:
    assert (await client.ask("/jobs", version=version)).status == 200


async def test_a_version_that_is_not_served_is_named_in_the_values_alone(
    client: BatchClient,
) -> None:
    reply = await client.get("/jobs?api-version=2026-10-02")
    assert "2026-10-02" not in reply.json["message"]["value"]
    assert [(item["key"], item["value"]) for item in reply.json["values"]] == [
        ("QueryParameterName", "api-version"),
        ("QueryParameterValue", "2026-10-02"),
    ]


async def test_only_what_is_selected_is_sent(client: BatchClient) -> None:
    job = busy_job(client.simulation.world)
    for item in await client.items("/jobs", select="state,id, poolInfo"):
        assert list(item) == ["id", "state", "poolInfo"]
    reply = await client.ask(f"/jobs/{job.id}/tasks", select="id,state", expand="stats")
    started = [item for item in reply.json["value"] if "stats" in item]
    assert {tuple(item) for item in reply.json["value"]} <= {
        ("id", "state", "stats"),
        ("id", "state"),
    }
    assert started
    body = (await client.ask(f"/jobs/{job.id}", select="id")).json
    assert list(body) == ["odata.metadata", "id"]


async def test_selected_statistics_are_expanded(client: BatchClient) -> None:
    job = busy_job(client.simulation.world)
    items = await client.items(f"/jobs/{job.id}/tasks", select="id,stats")
    assert any("stats" in item for item in items)


async def test_parameter_names_are_taken_in_any_case(client: BatchClient) -> None:
    reply = await client.get(f"/jobs?Api-Version={VERSION}&maxResults=2&timeOut=30")
    assert (reply.status, len(reply.json["value"])) == (200, 2)


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_pages_together_are_the_whole_list(client: BatchClient, size: int) -> None:
    job = busy_job(client.simulation.world)
    path = f"/jobs/{job.id}/tasks"
    items = await client.items(path, maxresults=size, filter="state ne 'active'", select="id")
    expected = [task.id for task in job.tasks.values() if task.state != "active"]
    assert [item["id"] for item in items] == expected
    pages = client.simulation.requests["Task_List"]
    assert pages == -(-len(expected) // size)


async def test_a_next_link_keeps_the_request_and_has_the_recorded_token(
    client: BatchClient,
) -> None:
    reply = await client.ask("/jobs", maxresults=2, filter="startswith(id, 'n')", select="id,state")
    link = reply.json["odata.nextLink"]
    parts = urlsplit(link)
    assert f"{parts.scheme}://{parts.netloc}" == client.simulation.endpoint
    assert parts.path == "/jobs"
    kept, _, token = parts.query.partition("&$skiptoken=")
    assert kept == (
        f"api-version={VERSION}&maxresults=2&$filter=startswith(id,%20'n')&$select=id,state"
    ).replace("'", "%27")
    assert re.fullmatch(r"WATV2:[A-Za-z0-9/%]+==:1\$1", token)
    assert "%5E" in token
    assert "/" in token
    assert list(reply.json)[-1] == "odata.nextLink"


async def test_the_last_page_has_no_next_link(client: BatchClient) -> None:
    jobs = client.simulation.world.jobs
    reply = await client.ask("/jobs", maxresults=len(jobs))
    assert "odata.nextLink" not in reply.json
    reply = await client.ask("/jobs", maxresults=len(jobs) - 1)
    assert "odata.nextLink" in reply.json


async def test_a_token_is_good_for_its_own_list_only(client: BatchClient) -> None:
    link = (await client.ask("/jobs", maxresults=2)).json["odata.nextLink"]
    token = link.partition("&$skiptoken=")[2]
    foreign = await client.get(f"/pools?api-version={VERSION}&$skiptoken={token}")
    filtered = await client.get(
        f"/jobs?api-version={VERSION}&$filter=state%20eq%20%27active%27&$skiptoken={token}"
    )
    tampered = await client.get(link.replace("WATV2:AAAAAAA", "WATV2:AAAAAAB"))
    assert [reply.status for reply in (foreign, filtered, tampered)] == [400, 400, 400]
    assert (await client.get(link)).status == 200


async def test_what_stays_is_listed_once_while_the_account_goes_on() -> None:
    world = World(SCENARIOS["steady"], seed=4, jobs=30, nodes=8)
    clock = Clock(world.now, speed=0)
    async with serve(world, clock) as simulation, aiohttp.ClientSession() as session:
        client = BatchClient(simulation, session)
        first = set(world.jobs.values())
        reply = await client.ask("/jobs", maxresults=3)
        found = [item["id"] for item in reply.json["value"]]
        while link := reply.json.get("odata.nextLink"):
            clock.advance(15)
            reply = await client.get(link)
            found += [item["id"] for item in reply.json["value"]]
    stayed = {job.id for job in first & set(world.jobs.values())}
    came = {job.id for job in set(world.jobs.values()) - first}
    assert stayed <= set(found)
    assert came & set(found)
    assert all(found.count(job_id) == 1 for job_id in stayed)
