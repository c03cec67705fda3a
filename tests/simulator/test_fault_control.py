"""Faults switched over HTTP, without credentials, beside the account and never in its way."""

import asyncio
import json
import re
from dataclasses import fields
from typing import Any

import aiohttp
import pytest

from exporter.cli import demo, simulate
from exporter.simulator import (
    CATALOGUE,
    FAULT_SCENARIOS,
    SCENARIOS,
    Clock,
    Faults,
    Rule,
    Simulation,
    World,
    fault_routes,
    serve,
)
from exporter.simulator.faults import control
from tests.process import logged_address, program, stop

from .conftest import BatchClient
from .raw_client import fetch
from .test_faults import alike, faults, simulation, urls

__all__ = ["faults", "simulation"]  # fixtures


async def call(simulation: Simulation, method: str, body: Any = None, path: str = "") -> Any:
    """Status and JSON of a call of the control."""
    data = body if isinstance(body, (bytes, str)) or body is None else json.dumps(body)
    url = f"{simulation.endpoint}/simulator/faults{path}"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, data=data) as response,
    ):
        assert response.content_type == "application/json"
        return response.status, await response.json()


async def test_faults_are_switched_on_and_off_while_it_runs(
    simulation: Simulation, faults: Faults
) -> None:
    url = urls(simulation.world)["Job_GetTaskCounts"]
    job = url.split("/")[2]
    before = await fetch(simulation, url)
    rule = {"name": "internal-error", "operation": "Job_GetTaskCounts", "job_id": job, "count": 2}
    status, answer = await call(simulation, "PUT", {"faults": [rule, {"name": "found"}]})
    assert status == 200
    assert answer["active"] == [rule | {"share": 1.0}, {"name": "found", "share": 1.0}]
    assert (await fetch(simulation, url)).status == 500
    status, answer = await call(simulation, "GET")
    assert status == 200
    assert answer["active"] == [
        rule | {"share": 1.0, "count": 1},
        {"name": "found", "share": 1.0},
    ]
    status, answer = await call(simulation, "PUT", {"faults": [{"name": "teapot"}]})
    assert (status, [one["name"] for one in answer["active"]]) == (200, ["teapot"])
    assert (await fetch(simulation, url)).status == 418
    status, answer = await call(simulation, "DELETE")
    assert (status, answer["active"], faults.active) == (200, [], ())
    assert alike(await fetch(simulation, url)) == alike(before)
    assert (await call(simulation, "PUT", {"faults": []}))[0] == 200


async def test_the_catalogue_is_listed_with_what_each_fault_does(simulation: Simulation) -> None:
    _, answer = await call(simulation, "GET")
    assert answer["catalogue"] == {
        name: fault.summary for name, fault in {**FAULT_SCENARIOS, **CATALOGUE}.items()
    }
    assert answer["catalogue"]["too-many-requests"] == "429, Retry-After in seconds"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        ([], "the body has no list of faults: write {"),
        ({"faults": {}}, "the body has no list of faults: write {"),
        ({"faults": [], "seed": 1}, "seed is unknown: write {"),
        ({"faults": ["outage"]}, "faults[0]: no object with a name"),
        ({"faults": [{"share": 1}]}, "faults[0]: no object with a name"),
        ({"faults": [{"name": 1}]}, "faults[0]: name 1: write a text"),
        ({"faults": [{"name": "outage", "operation": 5}]}, "operation 5: write a text such as"),
        ({"faults": [{"name": "outage", "job": "a"}]}, "job is unknown: use name, operation, job_"),
        ({"faults": [{"name": "found"}, {"name": "outtage"}]}, "faults[1]: there is no fault out"),
        ({"faults": [{"name": "outtage"}]}, "did you mean outage?"),
        ({"faults": [{"name": "outage", "share": "0.1"}]}, 'share "0.1": write a number above 0'),
        ({"faults": [{"name": "outage", "share": True}]}, "share true: write a number above 0"),
        ('{"faults": [{"name": "outage", "share": NaN}]}', "share nan: write a number above 0"),
        ({"faults": [{"name": "outage", "count": 1.5}]}, "count 1.5: write a whole number"),
        ({"faults": [{"name": "outage", "count": 0}]}, "count 0: write 1 or more"),
        ({"faults": [{"name": "outage", "count": None}]}, "count null: write a whole number"),
    ],
)
async def test_a_mistake_is_named_with_its_cure_and_changes_nothing(
    simulation: Simulation, faults: Faults, body: Any, error: str
) -> None:
    faults.set(Rule("teapot"))
    status, answer = await call(simulation, "PUT", body)
    assert status == 400
    assert list(answer) == ["error"] and error in answer["error"]
    assert faults.active == (Rule("teapot", share=1.0),)


def test_every_part_of_a_rule_can_be_set() -> None:
    assert set(control._TYPES) == {field.name for field in fields(Rule)}


async def test_nothing_below_simulator_reaches_the_account(simulation: Simulation) -> None:
    assert (await call(simulation, "POST", b"{}")) == (
        405,
        {"error": "POST is not possible: use GET, PUT or DELETE"},
    )
    status, answer = await call(simulation, "GET", path="/x")
    assert status == 404
    assert answer["error"] == ("there is nothing at /simulator/faults/x: use /simulator/faults")
    assert simulation.requests == {}


async def test_without_active_faults_each_byte_is_as_it_was(old_world: World) -> None:
    clock = Clock(old_world.now, speed=0)
    faults, packed = Faults(), 0
    paths = [*urls(old_world).values(), "/jobs", "/jobs/none?api-version=2024-07-01.20.0", "/x"]
    async with (
        serve(old_world, clock) as bare,
        serve(old_world, clock, interceptors=(faults,), routes=fault_routes(faults)) as able,
    ):
        for path in paths:
            for headers in ({}, {"Accept-Encoding": "gzip"}):
                expected = await fetch(bare, path, headers)
                assert expected.ended == "close" and expected.raw
                packed += expected.headers.get("content-encoding") == "gzip"
                assert alike(await fetch(able, path, headers)) == alike(expected)
        assert packed > 2
        assert bare.requests == able.requests


async def test_a_request_without_credentials_is_refused_before_any_fault(
    simulation: Simulation, faults: Faults
) -> None:
    faults.set(Rule("teapot"))
    async with aiohttp.ClientSession() as session:
        reply = await BatchClient(simulation, session).send(f"{simulation.endpoint}/jobs", {})
    assert (reply.status, reply.code) == (403, "AuthenticationFailed")
    assert not faults.played


@pytest.mark.parametrize("name", FAULT_SCENARIOS)
async def test_a_fault_scenario_starts_with_its_fault_and_ends_when_told(name: str) -> None:
    assert name in simulate.SCENARIOS and name not in SCENARIOS
    async with simulate.simulated_account(name, jobs=3, nodes=2, speed=0.0) as simulation:
        assert simulation.world.scenario is SCENARIOS["steady"]
        _, answer = await call(simulation, "GET")
        assert [one["name"] for one in answer["active"]] == [name]
        await call(simulation, "DELETE")
        path = "/jobs?api-version=2024-07-01.20.0"
        assert [(await fetch(simulation, path)).status for _ in range(10)] == [200] * 10


async def test_the_calls_that_the_demo_prints_are_right() -> None:
    async with simulate.simulated_account("prep-storm", jobs=3, nodes=2, speed=0.0) as simulation:
        url = "http://localhost:1"
        text = demo.instructions(simulation.endpoint, "prep-storm", (url,), "/metrics")
        assert (
            "  http://localhost:1/ for people, http://localhost:1/metrics for Prometheus\n" in text
        )
        puts = re.findall(r"curl -X PUT (\S+) -d '(.*)'", text)
        scenario, faults = (
            f"{simulation.endpoint}/simulator/{name}" for name in ("scenario", "faults")
        )
        assert [url for url, _ in puts] == [scenario, faults]
        assert f"  curl -X DELETE {faults}\n  curl {faults} names them all\n" in text
        async with aiohttp.ClientSession() as session:
            answers = [await (await session.put(url, data=body)).json() for url, body in puts]
        assert answers == [
            {"scenario": "steady"},
            {"active": [{"name": "outage", "share": 1.0}]},
        ]


@pytest.mark.full
async def test_the_demo_takes_a_fault_scenario_and_says_how_to_end_it() -> None:
    arguments = ("--scenario=auth-expired", "--web.listen-address=127.0.0.1:0")
    async with program("demo", *arguments) as process, asyncio.timeout(200):
        url = await logged_address(process)
        assert process.stdout is not None
        control = ""
        while not control:
            line = (await process.stdout.readline()).decode()
            control = line.partition("curl -X DELETE ")[2].strip()
        async with aiohttp.ClientSession() as session:

            async def wait_for(value: int) -> None:
                line = f'azure_batch_up{{account="simulated"}} {value}\n'
                while line not in await (await session.get(url)).text():  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

            await wait_for(0)
            await session.delete(control)
            await wait_for(1)
        await stop(process)
    assert process.returncode == 0
