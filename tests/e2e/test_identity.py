"""Managed identity end to end: the real program, the real azure-identity, a token endpoint."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from exporter.simulator import SCENARIOS, Clock, Identity, Simulation, World, serve, serve_identity
from tests.process import finish, logged_address, program, stop

START = datetime(2026, 6, 1, 12, tzinfo=UTC)


def world() -> World:
    return World(SCENARIOS["steady"], seed=2, jobs=3, nodes=3, start=START)


def write_config(folder: Path, simulation: Simulation, **auth: str) -> str:
    account = {
        "name": "acc",
        "endpoint": simulation.endpoint,
        "auth": auth,
        "requests_per_second": 100,
        "discovery_interval": "1s",
    }
    config = {"defaults": {"interval": "1s"}, "accounts": [account]}
    (folder / "config.yaml").write_text(json.dumps(config))
    return f"--config.file={folder}/config.yaml"


def virtual_machine(identity: Identity) -> Mapping[str, str]:
    return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": identity.url}


def app_service(identity: Identity) -> Mapping[str, str]:
    return {"IDENTITY_ENDPOINT": identity.app_service_url, "IDENTITY_HEADER": identity.header}


@pytest.mark.parametrize(
    ("auth", "environment", "endpoint"),
    [
        ({"method": "managed_identity"}, virtual_machine, "imds"),
        ({"method": "managed_identity"}, app_service, "app_service"),
        ({"method": "managed_identity", "client_id": "user-assigned"}, virtual_machine, "imds"),
        ({"method": "default"}, app_service, "app_service"),
    ],
    ids=["virtual machine", "app service", "user-assigned", "default"],
)
async def test_a_managed_identity_signs_in_with_one_token(
    auth: dict[str, str], environment: object, endpoint: str, tmp_path: Path
) -> None:
    assert callable(environment)
    async with (
        serve(world(), Clock(START, speed=0.0)) as simulation,
        serve_identity(simulation.tokens) as identity,
    ):
        flag = write_config(tmp_path, simulation, **auth)
        status, output, errors = await finish(
            "scrape", flag, "--log.level=debug", **environment(identity)
        )
        assert status == 0, errors
        assert 'azure_batch_up{account="acc"} 1\n' in output
        assert "azure_batch_job_tasks{" in output
        assert identity.issued == {endpoint: 1}
        assert sum(simulation.requests.values()) > 5
        for token in simulation.tokens._issued:
            assert token not in output + errors


@pytest.mark.full
async def test_a_token_is_renewed_before_it_expires(tmp_path: Path) -> None:
    async with (
        serve(world(), Clock(START, speed=0.0)) as simulation,
        # Renewal is due five minutes before the end: after two seconds.
        serve_identity(simulation.tokens, lifetime=timedelta(seconds=302)) as identity,
    ):
        flag = write_config(tmp_path, simulation, method="managed_identity")
        environment = virtual_machine(identity)
        async with (
            program("run", flag, "--web.listen-address=127.0.0.1:0", **environment) as exporter,
            asyncio.timeout(200),
        ):
            url = await logged_address(exporter)
            # azure-identity itself asks again no sooner than half a minute after it last asked.
            while identity.issued["imds"] < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            async with aiohttp.ClientSession() as session:
                text = await (await session.get(url)).text()
            errors = await stop(exporter)
        assert exporter.returncode == 0
        assert "Unclosed" not in errors
        assert 'azure_batch_up{account="acc"} 1\n' in text
        assert 'code="401"' not in text


async def test_a_token_for_the_wrong_audience_is_told_in_the_services_words(tmp_path: Path) -> None:
    async with (
        serve(world(), Clock(START, speed=0.0)) as simulation,
        serve_identity(simulation.tokens) as identity,
    ):
        flag = write_config(
            tmp_path,
            simulation,
            method="managed_identity",
            scope="https://batch.core.windows.net/.default",
        )
        status, output, errors = await finish("scrape", flag, **virtual_machine(identity))
        assert status == 1
        assert 'azure_batch_up{account="acc"} 0\n' in output
        assert "It should exactly match (including forward slash)" in errors
        assert errors.count("WARNING") == 1


@pytest.mark.full
async def test_a_missing_identity_is_told_and_ends_nothing(tmp_path: Path) -> None:
    async with serve(world(), Clock(START, speed=0.0)) as simulation:
        flag = write_config(tmp_path, simulation, method="managed_identity")
        status, output, errors = await finish(
            "scrape", flag, AZURE_POD_IDENTITY_AUTHORITY_HOST="http://127.0.0.1:1"
        )
        assert status == 1
        assert 'azure_batch_up{account="acc"} 0\n' in output
        assert "account cannot be polled" in errors
        assert simulation.requests == {}
