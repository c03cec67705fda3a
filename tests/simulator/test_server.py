"""The account over real HTTP: bodies and headers as the service writes them."""

import gzip
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from exporter.simulator import (
    SCENARIOS,
    BatchError,
    Call,
    Clock,
    Proceed,
    TokenRegistry,
    World,
    serve,
    ticks,
)
from exporter.simulator.model import Job, Task
from exporter.simulator.server import utc_now
from exporter.simulator.signatures import BATCH_AUDIENCE

from .conftest import VERSION, BatchClient

GUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def job_where(world: World, condition: Callable[[Job], object]) -> Job:
    return next(job for job in world.jobs.values() if condition(job))


def task_where(world: World, condition: Callable[[Task], object]) -> Task:
    return next(
        task for job in world.jobs.values() for task in job.tasks.values() if condition(task)
    )


def in_json(value: object) -> Any:
    return json.loads(json.dumps(value))


async def test_task_counts_come_with_slots_and_every_recorded_header(client: BatchClient) -> None:
    job = job_where(client.simulation.world, lambda job: job.task_counts.failed)
    reply = await client.ask(
        f"/jobs/{job.id}/taskcounts", headers={"client-request-id": "abc", "Accept-Encoding": ""}
    )
    counts, slots = job.task_counts, job.task_slot_counts
    base = client.simulation.endpoint
    assert reply.text == (
        f'{{\r\n  "odata.metadata":"{base}/$metadata#taskcountsresult/@Element","taskCounts":{{\r\n'
        f'    "active":{counts.active},"running":{counts.running},"completed":{counts.completed},'
        f'"succeeded":{counts.succeeded},"failed":{counts.failed}\r\n  }},"taskSlotCounts":{{\r\n'
        f'    "active":{slots.active},"running":{slots.running},"completed":{slots.completed},'
        f'"succeeded":{slots.succeeded},"failed":{slots.failed}\r\n  }}\r\n}}'
    )
    headers = dict(reply.headers)
    assert re.fullmatch(GUID, headers.pop("request-id"))
    assert headers.pop("Date").endswith(" GMT")
    assert headers == {
        "Content-Type": "application/json; odata=minimalmetadata",
        "DataServiceVersion": "3.0",
        "Server": "Microsoft-HTTPAPI/2.0",
        "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
        "Transfer-Encoding": "chunked",
        "X-Content-Type-Options": "nosniff",
    }


async def test_the_client_request_id_comes_back_when_asked_for(client: BatchClient) -> None:
    headers = {"client-request-id": "abc", "return-client-request-id": "true"}
    assert (await client.ask("/jobs", headers=headers)).headers["client-request-id"] == "abc"


@pytest.mark.parametrize(
    ("version", "suffix", "members"),
    [
        ("2017-06-01.5.1", "taskcounts", {"validationStatus"}),
        ("2018-03-01.6.1", "taskcounts", {"validationStatus"}),
        ("2018-08-01.7.0", "taskcounts", set()),
        ("2020-03-01.11.0", "taskcounts", set()),
        ("2020-09-01.12.0", "taskcountsresult", None),
        ("2025-06-01", "taskcountsresult", None),
    ],
)
async def test_task_counts_have_the_shape_of_their_version(
    client: BatchClient, version: str, suffix: str, members: set[str] | None
) -> None:
    job = job_where(client.simulation.world, lambda job: job.task_counts.succeeded)
    body = (await client.ask(f"/jobs/{job.id}/taskcounts", version=version)).json
    flat = {"active", "running", "completed", "succeeded", "failed"}
    assert body.pop("odata.metadata").endswith(f"/$metadata#{suffix}/@Element")
    if members is None:
        assert set(body) == {"taskCounts", "taskSlotCounts"}
        assert set(body["taskCounts"]) == set(body["taskSlotCounts"]) == flat
    else:
        assert set(body) == flat | members
        assert body["succeeded"] == job.task_counts.succeeded
        assert body.get("validationStatus") == ("Validated" if members else None)


async def test_a_finished_job_looks_as_recorded(client: BatchClient) -> None:
    job = job_where(
        client.simulation.world,
        lambda job: job.state == "completed" and job.release and not job.auto_pool,
    )
    reply = await client.ask(f"/jobs/{job.id}")
    body = reply.json
    assert next(iter(body)) == "odata.metadata"
    recorded = [
        "id", "displayName", "url", "eTag", "lastModified", "creationTime", "state",
        "stateTransitionTime", "previousState", "previousStateTransitionTime", "priority",
        "maxParallelTasks", "usesTaskDependencies", "allowTaskPreemption", "constraints",
        "jobPreparationTask", "jobReleaseTask", "poolInfo", "metadata", "executionInfo",
        "onAllTasksComplete", "onTaskFailure",
    ]  # fmt: skip
    assert list(body)[1:] == [name for name in recorded if name in body]
    assert set(recorded) - set(body) <= {"displayName", "metadata"}
    assert (body["state"], body["previousState"]) == ("completed", "active")
    assert job.ended is not None
    assert body["stateTransitionTime"] == body["executionInfo"]["endTime"]
    # The tag did not change when the job went from terminating to completed.
    assert body["lastModified"] == ticks.timestamp(job.modified) < body["stateTransitionTime"]
    assert body["executionInfo"] == {
        "startTime": ticks.timestamp(job.started),
        "endTime": ticks.timestamp(job.ended),
        "poolId": job.pool.id,
        "terminateReason": job.terminate_reason,
    }
    assert body["jobPreparationTask"]["constraints"]["maxWallClockTime"] == (
        "P10675199DT2H48M5.4775807S"
    )
    assert reply.headers["ETag"] == body["eTag"] == ticks.etag(job.modified)
    assert reply.headers["DataServiceId"] == body["url"]
    assert "null" not in reply.text


async def test_a_terminating_job_says_how_many_nodes_it_awaits() -> None:
    world = World(SCENARIOS["steady"], seed=2, jobs=40, nodes=8)
    while not any(job.awaiting_release for job in world.jobs.values()):
        world.advance(world.now + timedelta(seconds=0.5))
    job = job_where(world, lambda job: job.awaiting_release)
    async with serve(world, Clock(world.now, speed=0)) as simulation, aiohttp.ClientSession() as s:
        body = (await BatchClient(simulation, s).ask(f"/jobs/{job.id}")).json
    assert body["state"] == "terminating"
    assert body["executionInfo"]["terminateReason"] == job.terminate_reason
    assert body["executionInfo"]["schedulingError"] == {
        "category": "ServerError",
        "code": "JobTerminationAwaitingNodeProcessing",
        "message": "The Job termination operation is waiting for processing from one or more node.",
        "details": [
            {"name": "Number of nodes awaiting processing", "value": str(job.awaiting_release)}
        ],
    }


async def test_a_job_on_an_auto_pool_names_its_pool_in_execution_info_only() -> None:
    world = World(SCENARIOS["steady"], seed=2, jobs=60, nodes=8)
    job = job_where(world, lambda job: job.auto_pool)
    async with serve(world, Clock(world.now, speed=0)) as simulation, aiohttp.ClientSession() as s:
        body = (await BatchClient(simulation, s).ask(f"/jobs/{job.id}")).json
    assert set(body["poolInfo"]) == {"autoPoolSpecification"}
    assert re.fullmatch(GUID, body["executionInfo"]["poolId"].lower())


async def test_a_failed_task_carries_category_and_details_as_recorded(client: BatchClient) -> None:
    task = task_where(
        client.simulation.world,
        lambda task: task.failure and task.failure.code == "FailureExitCode",
    )
    body = (await client.ask(f"/jobs/{task.job.id}/tasks/{task.id}")).json
    assert body["executionInfo"]["exitCode"] == task.exit_code
    assert body["executionInfo"]["result"] == "failure"
    assert body["executionInfo"]["failureInfo"] == {
        "category": "UserError",
        "code": "FailureExitCode",
        "message": "The task exited with an exit code representing a failure",
        "details": [
            {"name": "Message", "value": "The task process exited with an unexpected exit code"},
            {"name": "AdditionalErrorCode", "value": "FailureExitCode"},
        ],
    }
    assert task.node is not None
    assert body["nodeInfo"]["affinityId"] == f"TVM:{task.node.id}"
    assert "stats" not in body


async def test_a_task_ended_before_it_ran_has_an_empty_node_info(client: BatchClient) -> None:
    task = task_where(
        client.simulation.world, lambda task: task.state == "completed" and task.started is None
    )
    assert task.ended is not None
    reply = await client.ask(f"/jobs/{task.job.id}/tasks/{task.id}")
    assert reply.json["nodeInfo"] == {}
    assert '"nodeInfo":{\r\n    \r\n  }' in reply.text
    assert reply.json["executionInfo"] == {
        "endTime": ticks.timestamp(task.ended),
        "failureInfo": {
            "category": "UserError",
            "code": "TaskEnded",
            "message": "Task Was Ended by User Request",
        },
        "result": "failure",
        "retryCount": 0,
        "requeueCount": 0,
    }


async def test_an_active_task_has_no_node_info_and_no_stats(client: BatchClient) -> None:
    task = task_where(client.simulation.world, lambda task: task.state == "active")
    body = (await client.ask(f"/jobs/{task.job.id}/tasks/{task.id}", expand="stats")).json
    assert "nodeInfo" not in body and "stats" not in body
    assert set(body["executionInfo"]) <= {"retryCount", "requeueCount", "lastRequeueTime"}


async def test_statistics_are_expanded_with_large_numbers_as_strings(client: BatchClient) -> None:
    world = client.simulation.world
    task = task_where(world, lambda task: task.state == "running")
    found = task.statistics(world.tick)
    assert found is not None
    body = (await client.ask(f"/jobs/{task.job.id}/tasks/{task.id}", expand="stats")).json
    assert list(body["stats"]) == [
        "url", "startTime", "lastUpdateTime", "userCPUTime", "kernelCPUTime", "wallClockTime",
        "readIOps", "writeIOps", "readIOGiB", "writeIOGiB", "waitTime",
    ]  # fmt: skip
    assert body["stats"]["readIOps"] == str(found.read_iops)
    assert body["stats"]["readIOGiB"] == found.read_io_gib
    assert body["stats"]["wallClockTime"] == ticks.duration(found.wall_clock_time)
    listed = (await client.ask(f"/jobs/{task.job.id}/tasks", expand="stats")).json["value"]
    assert [task for task in listed if "stats" in task]


async def test_preparation_and_release_records_are_all_there(client: BatchClient) -> None:
    job = job_where(
        client.simulation.world,
        lambda job: any(record.release for record in job.records.values()),
    )
    items = await client.items(f"/jobs/{job.id}/jobpreparationandreleasetaskstatus", maxresults=3)
    assert [item["nodeId"] for item in items] == list(job.records)
    for item, record in zip(items, job.records.values(), strict=True):
        preparation = item["jobPreparationTaskExecutionInfo"]
        assert preparation["retryCount"] == record.preparation.retry_count
        assert preparation["startTime"] == ticks.timestamp(record.preparation.started)
        assert preparation.get("result") == record.preparation.result
        assert preparation.get("exitCode") == record.preparation.exit_code
        assert ("jobReleaseTaskExecutionInfo" in item) == (record.release is not None)
        if record.release is not None:
            release = item["jobReleaseTaskExecutionInfo"]
            assert "retryCount" not in release
            assert release["state"] == record.release.state


async def test_a_job_with_neither_task_answers_409_with_the_recorded_code(
    client: BatchClient,
) -> None:
    job = job_where(client.simulation.world, lambda job: job.preparation is None)
    reply = await client.ask(f"/jobs/{job.id}/jobpreparationandreleasetaskstatus")
    assert reply.status == 409
    assert reply.code == "JobPreparationTaskOrReleaseTaskNotSpecified"
    text = reply.json["message"]["value"]
    request_id = reply.headers["request-id"]
    first = "The specified job does not have either job preparation task or job release task."
    assert re.fullmatch(
        rf"{re.escape(first)}\nRequestId:{request_id}\nTime:[-\d]{{10}}T[:\d]{{8}}\.\d{{7}}Z", text
    )
    assert "values" not in reply.json
    assert reply.json["odata.metadata"].endswith(
        "/$metadata#Microsoft.Azure.Batch.Protocol.Entities.Container.errors/@Element"
    )
    assert reply.headers["Content-Length"] == str(len(reply.text))


async def test_nothing_prepared_yet_is_an_empty_list_of_whitespace(client: BatchClient) -> None:
    job = job_where(client.simulation.world, lambda job: job.preparation)
    reply = await client.ask(
        f"/jobs/{job.id}/jobpreparationandreleasetaskstatus", filter="nodeId eq 'none'"
    )
    assert reply.text.endswith('"value":[\r\n    \r\n  ]\r\n}')
    assert reply.json["value"] == []


@pytest.mark.parametrize(
    ("version", "absent"),
    [
        ("2018-12-01.8.0", {"upgradingOS", "deallocated", "deallocating"}),
        ("2024-02-01.19.0", {"deallocated", "deallocating"}),
        ("2024-07-01.20.0", set()),
    ],
)
async def test_node_counts_have_the_states_of_their_version(
    client: BatchClient, version: str, absent: set[str]
) -> None:
    pools = client.simulation.world.pools
    body = (await client.ask("/nodecounts", version=version)).json
    for item in body["value"]:
        pool = pools[item["poolId"]]
        for kind, attribute in (("dedicated", "dedicated"), ("lowPriority", "low_priority")):
            counts = dict(item[kind])
            assert counts.pop("total") == sum(counts.values()) == pool.current(attribute)
            assert {name: number for name, number in counts.items() if number} == {
                name: number for name, number in pool.node_counts[attribute].items() if number
            }
            assert {"upgradingOS", "deallocated", "deallocating"} - set(counts) == absent


async def test_pools_are_listed_and_got(client: BatchClient) -> None:
    world = client.simulation.world
    items = await client.items("/pools")
    assert [item["id"] for item in items] == list(world.pools)
    body = (await client.ask(f"/pools/{items[0]['id']}")).json
    assert body["odata.metadata"].endswith("#pools/@Element")
    assert body["currentDedicatedNodes"] == world.pools[body["id"]].current("dedicated")


async def test_a_schedules_jobs_are_listed(client: BatchClient) -> None:
    world = client.simulation.world
    schedule = job_where(world, lambda job: job.schedule_id).schedule_id
    items = await client.items(f"/jobschedules/{schedule}/jobs")
    assert [item["id"] for item in items] == [
        job.id for job in world.jobs.values() if job.schedule_id == schedule
    ]
    assert all(item["id"].startswith(f"{schedule}:job-") for item in items)


async def test_subtasks_are_an_empty_list(client: BatchClient) -> None:
    task = task_where(client.simulation.world, lambda task: True)
    body = (await client.ask(f"/jobs/{task.job.id}/tasks/{task.id}/subtasksinfo")).json
    assert body["odata.metadata"].endswith("#subtaskinfo")
    assert body["value"] == []


@pytest.mark.parametrize("colon", [":", "%3A", "%3a"])
async def test_a_job_is_found_by_its_encoded_id_in_any_case(
    client: BatchClient, colon: str
) -> None:
    job = job_where(client.simulation.world, lambda job: ":" in job.id)
    path = job.id.upper().replace(":", colon)
    assert (await client.ask(f"/jobs/{path}")).json["id"] == job.id


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/jobs/nope", 404, "JobNotFound"),
        ("/jobs/no%20such%20job/taskcounts", 404, "JobNotFound"),
        ("/jobs/nope/tasks", 404, "JobNotFound"),
        ("/jobs/nope/jobpreparationandreleasetaskstatus", 404, "JobNotFound"),
        ("/jobs/{job}/tasks/nope", 404, "TaskNotFound"),
        ("/jobs/{job}/tasks/nope/subtasksinfo", 404, "TaskNotFound"),
        ("/pools/nope", 404, "PoolNotFound"),
        ("/jobschedules/nope/jobs", 404, "JobScheduleNotFound"),
        ("/nothing", 400, "InvalidUri"),
        ("/jobs/{job}/jobpreparationandreleasestatus", 400, "InvalidUri"),
        ("/jobs//taskcounts", 400, "InvalidUri"),
        ("/", 400, "InvalidUri"),
    ],
)
async def test_what_is_not_there_is_said_in_a_batch_error(
    client: BatchClient, path: str, status: int, code: str
) -> None:
    job = next(iter(client.simulation.world.jobs))
    reply = await client.ask(path.format(job=job))
    assert (reply.status, reply.code) == (status, code)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_the_account_is_read_only(client: BatchClient, method: str) -> None:
    headers = {"Content-Length": "0", "Content-Type": "application/json"}
    reply = await client.get(f"/jobs?api-version={VERSION}", headers, method)
    assert (reply.status, reply.code) == (405, "UnsupportedHttpVerb")


@pytest.mark.parametrize("authorization", [{}, {"Authorization": "SharedKey simulated:AAAA"}])
async def test_an_unsigned_request_is_refused(
    client: BatchClient, authorization: dict[str, str]
) -> None:
    url = f"{client.simulation.endpoint}/jobs?api-version={VERSION}"
    reply = await client.send(url, authorization)
    assert (reply.status, reply.code) == (403, "AuthenticationFailed")
    assert reply.json["values"][0]["key"] == "AuthenticationErrorDetail"


async def test_a_bearer_token_is_accepted_until_it_expires(client: BatchClient) -> None:
    url = f"{client.simulation.endpoint}/jobs?api-version={VERSION}"
    tokens: TokenRegistry = client.simulation.tokens
    for lifetime, status in ((timedelta(hours=1), 200), (timedelta(0), 401)):
        token = tokens.issue(BATCH_AUDIENCE, lifetime)
        reply = await client.send(url, {"Authorization": f"Bearer {token}"})
        assert reply.status == status


async def test_a_known_task_is_not_sent_again(client: BatchClient) -> None:
    task = task_where(client.simulation.world, lambda task: task.state == "completed")
    path = f"/jobs/{task.job.id}/tasks/{task.id}"
    tag = (await client.ask(path)).headers["ETag"]
    reply = await client.ask(path, headers={"If-None-Match": tag})
    assert (reply.status, reply.text) == (304, "")
    assert reply.headers["ETag"] == tag
    assert (await client.ask(path, headers={"If-None-Match": "0x8D"})).status == 200


@pytest.mark.parametrize(
    ("header", "seconds", "status"),
    [
        ("If-Modified-Since", 1, 304),
        ("If-Modified-Since", 0, 304),
        ("If-Modified-Since", -1, 200),
        ("If-Unmodified-Since", 1, 200),
        ("If-Unmodified-Since", 0, 200),
        ("If-Unmodified-Since", -1, 412),
    ],
)
async def test_conditions_on_the_date_of_change_hold(
    client: BatchClient, header: str, seconds: int, status: int
) -> None:
    job = job_where(client.simulation.world, lambda job: job.state == "completed")
    date = ticks.to_datetime(job.modified).replace(microsecond=0) + timedelta(seconds=seconds)
    reply = await client.ask(
        f"/jobs/{job.id}", headers={header: format_datetime(date, usegmt=True)}
    )
    assert reply.status == status
    if status == 412:
        assert reply.code == "ConditionNotMet"


async def test_conditions_on_the_tag_hold(client: BatchClient) -> None:
    job = next(iter(client.simulation.world.jobs.values()))
    path = f"/jobs/{job.id}"
    assert (await client.ask(path, headers={"If-Match": "0x8D"})).code == "ConditionNotMet"
    assert (await client.ask(path, headers={"If-Match": ticks.etag(job.modified)})).status == 200
    reply = await client.ask(path, headers={"If-Modified-Since": "yesterday"})
    assert (reply.status, reply.code) == (400, "InvalidHeaderValue")


async def test_a_large_body_is_compressed_where_that_is_accepted(client: BatchClient) -> None:
    url = f"/jobs?api-version={VERSION}"
    plain = await client.get(url, {"Accept-Encoding": "identity"})
    packed = await client.get(url, {"Accept-Encoding": "gzip, deflate"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert plain.json == packed.json
    assert len(gzip.compress(plain.text.encode())) < len(plain.text)


async def test_each_request_sees_the_account_at_the_clocks_time() -> None:
    world = World(SCENARIOS["steady"], jobs=5, nodes=4)
    clock = Clock(world.now, speed=0)
    async with serve(world, clock) as simulation, aiohttp.ClientSession() as session:
        client = BatchClient(simulation, session)
        first = await client.ask("/jobs")
        assert (await client.ask("/jobs")).json == first.json
        clock.advance(120)
        later = await client.ask("/jobs")
        assert world.now == clock.now()
        assert later.json != first.json
        assert simulation.requests == {"Job_List": 3}


async def test_requests_are_counted_by_operation(client: BatchClient) -> None:
    job = next(iter(client.simulation.world.jobs))
    await client.ask(f"/jobs/{job}/taskcounts")
    await client.ask(f"/jobs/{job}")
    await client.ask("/nodecounts")
    await client.ask("/nonsense")
    assert client.simulation.requests == {
        "Job_GetTaskCounts": 1,
        "Job_Get": 1,
        "Account_ListPoolNodeCounts": 1,
        "unknown": 1,
    }


async def test_an_interceptor_may_refuse_delay_or_change_an_answer(old_world: World) -> None:
    async def throttle(
        request: web.Request, call: Call, proceed: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if call.operation == "Job_List":
            text = "Request failed as server encountered too many requests. Please try again."
            raise BatchError(429, "TooManyRequests", text, headers=(("Retry-After", "30"),))
        return await proceed()

    async def mark(request: web.Request, call: Call, proceed: Proceed) -> web.StreamResponse:
        response = await proceed()
        response.headers["seen"] = call.operation
        return response

    clock = Clock(old_world.now, speed=0)
    async with (
        serve(old_world, clock, interceptors=(throttle, mark)) as simulation,
        aiohttp.ClientSession() as session,
    ):
        client = BatchClient(simulation, session)
        refused = await client.ask("/jobs")
        assert (refused.status, refused.code) == (429, "TooManyRequests")
        assert refused.headers["Retry-After"] == "30"
        assert (await client.ask("/pools")).headers["seen"] == "Pool_List"


async def test_an_interceptor_may_break_an_answer_off(old_world: World) -> None:
    async def cut(request: web.Request, call: Call, proceed: Proceed) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"odata.metadata":')
        assert request.transport is not None
        request.transport.abort()
        return response

    clock = Clock(old_world.now, speed=0)
    async with (
        serve(old_world, clock, interceptors=(cut,)) as simulation,
        aiohttp.ClientSession() as session,
    ):
        with pytest.raises(aiohttp.ClientError):
            await BatchClient(simulation, session).ask("/jobs")


async def test_node_counts_come_ten_pools_to_a_page() -> None:
    world = World(SCENARIOS["steady"], jobs=30, nodes=2)
    assert len(world.pools) > 20
    async with serve(world, Clock(world.now, speed=0)) as simulation, aiohttp.ClientSession() as s:
        client = BatchClient(simulation, s)
        first = await client.ask("/nodecounts")
        assert len(first.json["value"]) == 10
        items = await client.items("/nodecounts")
    assert [item["poolId"] for item in items] == list(world.pools)


@pytest.mark.parametrize("follows", [True, False])
async def test_a_tasks_tag_follows_its_state_where_the_scenario_says_so(follows: bool) -> None:
    scenario = replace(SCENARIOS["steady"], etag_follows_task_state=follows)
    world = World(scenario, jobs=6, nodes=4)
    task = task_where(world, lambda task: task.state == "running")
    clock = Clock(world.now, speed=0)
    async with serve(world, clock) as simulation, aiohttp.ClientSession() as session:
        client = BatchClient(simulation, session)
        path = f"/jobs/{task.job.id}/tasks/{task.id}"
        tag = (await client.ask(path)).headers["ETag"]
        while task.state != "completed":
            clock.advance(1)
            world.advance(clock.now())
        reply = await client.ask(path, headers={"If-None-Match": tag})
    assert reply.status == (200 if follows else 304)


def test_real_time_is_aware() -> None:
    assert utc_now().utcoffset() == timedelta(0)
