"""Scenarios that are changed while the simulated account is served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import aiohttp
import pytest

from exporter.simulator import (
    FAULT_SCENARIOS,
    SCENARIO_PATH,
    SCENARIOS,
    SIGN_IN_SCENARIOS,
    Clock,
    Faults,
    Identity,
    Rule,
    TokenRegistry,
    World,
    begin_sign_in,
    fault_routes,
    scenario_routes,
    serve,
)
from exporter.simulator.server import utc_now

START = datetime(2026, 6, 1, 12, tzinfo=UTC)


def world(name: str = "steady") -> World:
    return World(SCENARIOS[name], seed=2, jobs=6, nodes=3, start=START)


class Control:
    """A client of the path, and what it changes."""

    def __init__(self, client: aiohttp.ClientSession, account: World, faults: Faults) -> None:
        self.world = account
        self.faults = faults
        self._client = client

    async def get(self) -> Any:
        return await (await self._client.get(SCENARIO_PATH)).json()

    async def put(self, body: str) -> tuple[int, Any]:
        answer = await self._client.put(SCENARIO_PATH, data=body)
        return answer.status, await answer.json()


@pytest.fixture
async def control() -> AsyncIterator[Control]:
    """The path of an account that lives the scenario steady."""
    account, faults = world(), Faults()
    routes = (*scenario_routes(account, faults, "steady"), *fault_routes(faults))
    async with (
        serve(account, Clock(START, speed=0.0), routes=routes) as simulation,
        aiohttp.ClientSession(simulation.endpoint) as client,
    ):
        yield Control(client, account, faults)


async def test_the_path_names_the_scenario_and_all_that_there_are(control: Control) -> None:
    found = await control.get()
    assert found["scenario"] == "steady"
    assert found["scenarios"].keys() == (
        SCENARIOS.keys() | FAULT_SCENARIOS.keys() | SIGN_IN_SCENARIOS.keys()
    )


async def test_a_scenario_of_the_account_is_lived_from_now_on(control: Control) -> None:
    jobs = dict(control.world.jobs)
    assert await control.put('{"scenario": "flaky-tasks"}') == (200, {"scenario": "flaky-tasks"})
    assert control.world.scenario is SCENARIOS["flaky-tasks"]
    assert control.world.jobs == jobs  # what is there stays
    assert (await control.get())["scenario"] == "flaky-tasks"


async def test_a_scenario_of_faults_is_played_until_another_begins(control: Control) -> None:
    assert (await control.put('{"scenario": "outage"}'))[0] == 200
    assert [rule.name for rule in control.faults.active] == ["outage"]
    assert control.world.scenario is SCENARIOS["steady"]
    assert (await control.put('{"scenario": "prep-storm"}'))[0] == 200
    assert control.faults.active == ()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("", "the body is not JSON"),
        ("[]", "the body is not a scenario: write"),
        ('{"scenario": 5}', "the body is not a scenario: write"),
        ('{"scenario": "steady", "speed": 5}', "the body is not a scenario: write"),
        ('{"scenario": "prep-strom"}', "there is no scenario prep-strom: did you mean prep-storm?"),
        ('{"scenario": "holiday"}', "there is no scenario holiday: there are steady, "),
    ],
)
async def test_what_is_no_scenario_is_refused_and_changes_nothing(
    body: str, error: str, control: Control
) -> None:
    control.faults.set(Rule("outage"))
    status, answer = await control.put(body)
    assert (status, answer["error"][: len(error)]) == (400, error)
    assert [rule.name for rule in control.faults.active] == ["outage"]


@pytest.mark.parametrize("name", SIGN_IN_SCENARIOS)
async def test_signing_in_cannot_fail_where_the_account_key_signs_in(
    name: str, control: Control
) -> None:
    control.faults.set(Rule("outage"))
    status, answer = await control.put(f'{{"scenario": "{name}"}}')
    assert status == 409
    assert answer["error"].startswith(f"{name} cannot begin here: clients sign in with the account")
    assert f"Start `demo --scenario={name}`" in answer["error"]
    assert (await control.get())["scenario"] == "steady"
    assert [rule.name for rule in control.faults.active] == ["outage"]


@pytest.mark.parametrize("name", SIGN_IN_SCENARIOS)
async def test_signing_in_fails_until_another_scenario_begins(name: str) -> None:
    account, faults, identity = world(), Faults(), Identity(TokenRegistry(utc_now))
    routes = scenario_routes(account, faults, "steady", partial(begin_sign_in, identity))
    async with (
        serve(account, Clock(START, speed=0.0), routes=routes) as simulation,
        aiohttp.ClientSession(simulation.endpoint) as client,
    ):
        control = Control(client, account, faults)
        assert await control.put(f'{{"scenario": "{name}"}}') == (200, {"scenario": name})
        active = identity.failures.active
        assert active is not None
        assert active.failure == SIGN_IN_SCENARIOS[name].failure
        assert identity.lifetime == timedelta(minutes=5)
        assert (await control.put('{"scenario": "flaky-tasks"}'))[0] == 200
        assert identity.failures.active is None


def test_an_image_breaks_in_the_scenario_that_has_it_and_is_mended_by_the_next() -> None:
    account = world()
    account.change(SCENARIOS["prep-storm"])
    account.advance(START + timedelta(seconds=200))
    assert account._state.image_broken
    account.change(SCENARIOS["steady"])
    assert not account._state.image_broken


def test_what_a_scenario_had_in_store_does_not_happen_when_it_is_over() -> None:
    account = world()
    account.change(SCENARIOS["prep-storm"])
    account.advance(START + timedelta(seconds=30))
    account.change(SCENARIOS["steady"])
    account.advance(START + timedelta(seconds=200))
    assert not account._state.image_broken


def test_tasks_are_put_on_nodes_again_when_a_scenario_that_stopped_that_is_over() -> None:
    account = world("stalled")
    account.advance(START + timedelta(seconds=1000))
    started = tasks_running(account)
    account.change(SCENARIOS["steady"])
    assert (started, tasks_running(account) > 0) == (0, True)


def tasks_running(account: World) -> int:
    return sum(
        task.state == "running" for job in account.jobs.values() for task in job.tasks.values()
    )
