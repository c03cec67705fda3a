"""The service's clock, its HEAD, its URLs behind a proxy, TLS, and records as the real one has."""

import re
import ssl
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import count
from pathlib import Path

import aiohttp
import pytest

from exporter.cli.certificate import server_certificate
from exporter.simulator import SCENARIOS, Clock, Faults, Rule, World, serve
from exporter.simulator.ledger import RunCompleted, TaskCompleted

from .conftest import VERSION, BatchClient
from .test_oddities import served

STEADY = SCENARIOS["steady"]
RECORDS = "jobpreparationandreleasetaskstatus"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


# Times


@pytest.mark.parametrize("speed", [0.5, 1.0, 50.0])
async def test_nothing_that_is_shown_is_later_than_the_date(speed: float) -> None:
    start = datetime.now(UTC)
    world = World(STEADY, seed=3, jobs=8, nodes=6, start=start)
    ticking = count()
    clock = Clock(start, speed=speed, monotonic=lambda: next(ticking) * 0.013)
    shown = just_now = 0
    async with (
        serve(world, clock, simulated_date=True) as simulation,
        aiohttp.ClientSession() as session,
    ):
        client = BatchClient(simulation, session)
        for _ in range(150):
            jobs = await client.ask("/jobs", maxresults=1000)
            paths = [f"/jobs/{item['id']}/{what}" for item in jobs.json["value"][-2:]
                     for what in ("tasks", RECORDS)]  # fmt: skip
            for reply in [jobs, *[await client.ask(path) for path in ("/pools", *paths)]]:
                date = parsedate_to_datetime(reply.headers["Date"])
                assert date <= world.now
                for text in TIME.findall(reply.text):
                    ahead = datetime.fromisoformat(text) - date
                    assert ahead < timedelta(seconds=1), text
                    shown += 1
                    just_now += ahead > -timedelta(seconds=speed)
    assert shown > 10_000
    assert just_now


async def test_a_job_that_was_just_made_began_no_later_than_now() -> None:
    world = World(STEADY, jobs=0, nodes=2)
    world.create_job("new", tasks=5000)
    async with served(world) as (client, _):
        info = (await client.ask("/jobs/new")).json["executionInfo"]
        tasks = await client.items("/jobs/new/tasks")
    times = [info["startTime"], *(value for task in tasks for name, value in task.items()
                                  if name.endswith("Time") or name == "lastModified")]  # fmt: skip
    assert max(datetime.fromisoformat(text) for text in times) == world.now


async def test_the_date_is_real_where_nobody_asks_for_another(client: BatchClient) -> None:
    date = parsedate_to_datetime((await client.ask("/jobs")).headers["Date"])
    assert date - client.simulation.world.now > timedelta(days=1)


async def test_errors_have_the_accounts_date_and_signatures_may_have_it() -> None:
    world = World(STEADY, jobs=2, nodes=2)
    clock = Clock(world.now, speed=0)
    async with (
        serve(world, clock, simulated_date=True) as simulation,
        aiohttp.ClientSession() as session,
    ):
        client = BatchClient(simulation, session)
        date = world.now.strftime("%a, %d %b %Y %H:%M:%S GMT")
        assert (await client.ask("/jobs/none")).headers["Date"] == date
        reply = await client.get(f"/jobs?api-version={VERSION}", {"ocp-date": date})
        assert reply.status == 200


# HEAD


@pytest.mark.parametrize("kind", ["jobs", "tasks", "pools"])
async def test_head_tells_whether_there_is_such_a_one(client: BatchClient, kind: str) -> None:
    world = client.simulation.world
    job = next(iter(world.jobs.values()))
    paths = {
        "jobs": f"/jobs/{job.id}",
        "tasks": f"/jobs/{job.id}/tasks/{next(iter(job.tasks))}",
        "pools": f"/pools/{next(iter(world.pools))}",
    }
    got = await client.get(f"{paths[kind]}?api-version={VERSION}")
    there = await client.get(f"{paths[kind]}?api-version={VERSION}", method="HEAD")
    assert (there.status, there.text) == (200, "")
    for header in ("ETag", "Last-Modified", "DataServiceId"):
        assert there.headers[header] == got.headers[header]
    absent = await client.get(f"{paths[kind]}x?api-version={VERSION}", method="HEAD")
    assert (absent.status, absent.text) == (404, "")


@pytest.mark.parametrize("path", ["/jobs", "/pools", "/nodecounts", "/jobs/x/taskcounts"])
async def test_head_of_anything_else_is_refused(client: BatchClient, path: str) -> None:
    reply = await client.get(f"{path}?api-version={VERSION}", method="HEAD")
    assert (reply.status, reply.headers["Allow"]) == (405, "GET")


# Behind a proxy, and TLS


@pytest.mark.parametrize(
    ("said", "scheme"),
    [
        ("https", "https"),
        ("HTTPS, http", "https"),
        ("http", "http"),
        ("gopher", "http"),
        ("", "http"),
    ],
)
async def test_links_have_the_scheme_by_which_the_client_came(
    client: BatchClient, said: str, scheme: str
) -> None:
    forwarded = {"X-Forwarded-Proto": said}
    reply = await client.ask("/jobs", maxresults=1, headers=forwarded)
    host = client.simulation.endpoint.removeprefix("http://")
    link = reply.json["odata.nextLink"]
    assert link.startswith(f"{scheme}://{host}/jobs?")
    assert reply.json["value"][0]["url"].startswith(f"{scheme}://{host}/jobs/")
    # The proxy passes the link on as it is, but for the scheme.
    following = await client.get(link.replace("https://", "http://"), forwarded)
    assert following.status == 200
    assert following.json["value"][0]["id"] != reply.json["value"][0]["id"]


async def test_the_account_can_be_served_over_tls() -> None:
    world = World(STEADY, jobs=2, nodes=2)
    with server_certificate("127.0.0.1") as (tls, authority):
        assert "PRIVATE" not in authority.read_text()
        assert [path.name for path in authority.parent.iterdir()] == ["ca.pem"]
        trusted = ssl.create_default_context(cafile=authority)
        async with serve(world, Clock(world.now, speed=0), tls=tls) as simulation:
            assert simulation.endpoint.startswith("https://127.0.0.1:")
            for host in ("127.0.0.1", "localhost"):
                url = (
                    simulation.endpoint.replace("127.0.0.1", host) + f"/jobs?api-version={VERSION}"
                )
                connector = aiohttp.TCPConnector(ssl=trusted)
                async with aiohttp.ClientSession(connector=connector) as session:
                    client = BatchClient(simulation, session)
                    reply = await client.get(f"{url}&maxresults=1")
                    assert reply.json["odata.nextLink"].startswith(f"https://{host}:")
            async with aiohttp.ClientSession() as session:
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await BatchClient(simulation, session).get(url)
    assert not Path(authority.parent).exists()


# A 404 that passes


async def test_a_404_that_passes_hits_each_job_once() -> None:
    world = World(STEADY, jobs=3, nodes=2)
    faults = Faults(Rule("job-not-found-once"))
    async with (
        serve(world, Clock(world.now, speed=0), interceptors=(faults,)) as simulation,
        aiohttp.ClientSession() as session,
    ):
        client = BatchClient(simulation, session)
        for job_id in world.jobs:
            first = await client.ask(f"/jobs/{job_id}/taskcounts")
            assert (first.status, first.code) == (404, "JobNotFound")
            for path in (f"/jobs/{job_id.upper()}/taskcounts", f"/jobs/{job_id}"):
                assert (await client.ask(path)).status == 200
        assert (await client.ask("/jobs")).status == 200


# Records


async def test_completed_runs_without_a_result_say_their_exit_code_only() -> None:
    scenario = replace(
        STEADY,
        exit_code_only_share=1.0,
        preparation_failure_share=0.3,
        release_failure_share=0.3,
        node_incident_interval=1e9,
    )
    world = World(scenario, seed=4, jobs=10, nodes=6, ledger=True)
    results = Counter[tuple[str, str | None, bool]]()
    async with served(world) as (client, clock):
        clock.advance(60)
        world.advance(clock.now())
        for job in [job for job in world.jobs.values() if job.preparation]:
            truth = {(run.node_id, run.kind): run
                     for run in world.ledger.of(RunCompleted, job=job.number)}  # fmt: skip
            for record in await client.items(f"/jobs/{job.id}/{RECORDS}"):
                for kind in ("preparation", "release"):
                    run = record.get(f"job{kind.title()}TaskExecutionInfo")
                    if run is None or run["state"] != "completed":
                        continue
                    event = truth[record["nodeId"], kind]
                    assert "result" not in run
                    assert run.get("exitCode") == event.exit_code
                    assert run.get("failureInfo", {}).get("code") == event.code
                    assert ("failureInfo" in run) == (
                        event.result == "failure" and not event.exit_code
                    )
                    results[kind, event.result, "failureInfo" in run] += 1
            unsaid = await client.items(
                f"/jobs/{job.id}/tasks", filter="executionInfo/result eq 'failure'"
            )
            assert unsaid == []
    assert results.keys() >= {
        *(("preparation", "success", False), ("preparation", "failure", False)),
        *(("release", "success", False), ("release", "failure", False)),
        ("preparation", "failure", True),
    }
    assert any(event.result == "failure" for event in world.ledger.of(TaskCompleted))


async def test_containers_are_told_and_why_one_did_not_start() -> None:
    world = World(SCENARIOS["odd-records"], seed=4, jobs=16, nodes=6)
    seen = Counter[str]()
    async with served(world) as (client, clock):
        clock.advance(120)
        world.advance(clock.now())
        for job in list(world.jobs.values()):
            runs = [task["executionInfo"] for task in await client.items(f"/jobs/{job.id}/tasks")]
            if job.preparation:
                for record in await client.items(f"/jobs/{job.id}/{RECORDS}"):
                    runs += [info for name, info in record.items() if name.endswith("Info")]
            for run in runs:
                container = run.get("containerInfo")
                seen["none"] += container is None
                if container is None:
                    continue
                seen[container["state"]] += 1
                if "error" in container:
                    assert container["error"].startswith("OCI runtime create failed")
                    assert run["exitCode"] == 125
                    assert run.get("failureInfo", {}).get("code") in (None, "ContainerMiscError")
                    seen["told"] += "failureInfo" in run
                else:
                    assert re.fullmatch("[0-9a-f]{64}", container["containerId"])
        older = await client.ask(f"/jobs/{job.id}/tasks", "2017-06-01.5.1")
        assert "containerInfo" not in older.text
    assert all(seen[what] for what in ("none", "exited", "", "told")), seen


async def test_records_and_tasks_may_write_pool_ids_in_capitals() -> None:
    world = World(replace(STEADY, pool_ids_in_capitals=True), seed=4, jobs=6, nodes=4, ledger=True)
    written = set[str]()
    async with served(world) as (client, _):
        pools = {pool["id"] for pool in await client.items("/pools")}
        for job in await client.items("/jobs"):
            assert job["executionInfo"]["poolId"] in pools
            for task in await client.items(f"/jobs/{job['id']}/tasks"):
                written |= {task["nodeInfo"]["poolId"]} if task.get("nodeInfo") else set()
            if "jobPreparationTask" in job:
                records = await client.items(f"/jobs/{job['id']}/{RECORDS}")
                written |= {record["poolId"] for record in records}
                for pool_id in {record["poolId"].lower() for record in records}:
                    same = await client.items(
                        f"/jobs/{job['id']}/{RECORDS}", filter=f"poolId eq '{pool_id}'"
                    )
                    assert same
    assert written and written <= {pool_id.upper() for pool_id in pools}
    noted = {run.pool_id for run in world.ledger.of(RunCompleted)}
    assert noted & pools


# $select

DOCUMENTED = {
    "/jobs": (
        "id displayName url eTag lastModified creationTime state stateTransitionTime previousState"
        " previousStateTransitionTime priority maxParallelTasks usesTaskDependencies"
        " allowTaskPreemption constraints jobManagerTask jobPreparationTask jobReleaseTask"
        " commonEnvironmentSettings poolInfo networkConfiguration metadata executionInfo"
        " onAllTasksComplete onTaskFailure stats"
    ),
    "/jobs/{job}/tasks": (
        "id displayName url eTag lastModified creationTime exitConditions state"
        " stateTransitionTime previousState previousStateTransitionTime commandLine"
        " containerSettings resourceFiles outputFiles environmentSettings affinityInfo constraints"
        " requiredSlots userIdentity executionInfo nodeInfo multiInstanceSettings stats dependsOn"
        " applicationPackageReferences authenticationTokenSettings"
    ),
    f"/jobs/{{job}}/{RECORDS}": (
        "poolId nodeId nodeUrl jobPreparationTaskExecutionInfo jobReleaseTaskExecutionInfo"
    ),
    "/pools": (
        "id displayName url eTag lastModified creationTime state stateTransitionTime"
        " allocationState allocationStateTransitionTime vmSize virtualMachineConfiguration"
        " cloudServiceConfiguration resizeTimeout resizeErrors currentDedicatedNodes"
        " currentLowPriorityNodes targetDedicatedNodes targetLowPriorityNodes enableAutoScale"
        " autoScaleFormula autoScaleEvaluationInterval autoScaleRun enableInterNodeCommunication"
        " networkConfiguration startTask certificateReferences applicationPackageReferences"
        " applicationLicenses taskSlotsPerNode taskSchedulingPolicy userAccounts metadata stats"
        " mountConfiguration identity upgradePolicy resourceTags targetNodeCommunicationMode"
        " currentNodeCommunicationMode vmSkuProfile"
    ),
}
"""The members that the API documents, in some version of it."""


@pytest.mark.parametrize("path", DOCUMENTED)
async def test_every_documented_member_can_be_selected(client: BatchClient, path: str) -> None:
    world = client.simulation.world
    job = next(job for job in world.jobs.values() if job.records and job.tasks)
    path, names = path.format(job=job.id), DOCUMENTED[path].split()
    whole = (await client.ask(path)).json["value"]
    for name in names:
        for item in (await client.ask(path, select=name)).json["value"]:
            assert item.keys() <= {name}
    everything = (await client.ask(path, select=",".join(names))).json["value"]
    assert {key for item in whole for key in item} <= set(names)
    assert [{**item, "stats": 0} for item in everything] == [{**item, "stats": 0} for item in whole]
