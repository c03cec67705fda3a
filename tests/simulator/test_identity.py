"""Managed identity from the token endpoint to the account, through azure-identity itself."""

import asyncio
import json
import os
import sys
from datetime import timedelta

import aiohttp
import pytest

from exporter.simulator import Clock, TokenRegistry, World, serve, serve_identity
from exporter.simulator.identity import APP_SERVICE_PATH, IMDS_PATH
from exporter.simulator.server import utc_now

from .conftest import VERSION

SCOPE = "https://batch.core.windows.net//.default"
SCRIPT = """
import asyncio, json, sys
from azure.identity.aio import ManagedIdentityCredential

async def main() -> None:
    async with ManagedIdentityCredential() as credential:
        token = await credential.get_token(sys.argv[1])
        print(json.dumps({"token": token.token, "expires_on": token.expires_on}))

asyncio.run(main())
"""


async def token_in_a_process(scope: str, **environment: str) -> dict[str, object]:
    """What ManagedIdentityCredential gets in a process of its own with this environment."""
    kept = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "MSI_SECRET"):
        kept.pop(name, None)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCRIPT,
        scope,
        env=kept | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 200)
    assert process.returncode == 0, errors.decode()
    found: dict[str, object] = json.loads(output)
    return found


@pytest.mark.parametrize("kind", ["imds", "app_service"])
async def test_azure_identity_gets_a_token_that_the_account_takes(
    old_world: World, kind: str
) -> None:
    tokens = TokenRegistry(utc_now)
    clock = Clock(old_world.now, speed=0)
    async with (
        serve_identity(tokens, lifetime=timedelta(minutes=30)) as identity,
        serve(old_world, clock, tokens=tokens) as simulation,
        aiohttp.ClientSession() as session,
    ):
        if kind == "imds":
            environment = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": identity.url}
        else:
            environment = {
                "IDENTITY_ENDPOINT": identity.app_service_url,
                "IDENTITY_HEADER": identity.header,
            }
        found = await token_in_a_process(SCOPE, **environment)
        assert identity.issued == {kind: 1}
        remaining = float(str(found["expires_on"])) - utc_now().timestamp()
        assert remaining == pytest.approx(1800, abs=30)
        headers = {"Authorization": f"Bearer {found['token']}"}
        url = f"{simulation.endpoint}/jobs?api-version={VERSION}"
        async with session.get(url, headers=headers) as response:
            assert response.status == 200


async def test_a_token_for_the_scope_with_one_slash_is_for_the_wrong_audience() -> None:
    tokens = TokenRegistry(utc_now)
    async with serve_identity(tokens) as identity, aiohttp.ClientSession() as session:
        url = f"{identity.url}{IMDS_PATH}?api-version=2018-02-01"
        url += "&resource=https://batch.core.windows.net"
        async with session.get(url, headers={"Metadata": "true"}) as response:
            token = (await response.json())["access_token"]
    with pytest.raises(Exception, match="AuthenticationFailed"):
        tokens.verify(token)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"{IMDS_PATH}?api-version=2018-02-01&resource=x", {}, 400),
        (f"{IMDS_PATH}?api-version=2018-02-01", {"Metadata": "true"}, 400),
        (f"{APP_SERVICE_PATH}?api-version=2019-08-01&resource=x", {}, 401),
        (
            f"{APP_SERVICE_PATH}?api-version=2019-08-01&resource=x",
            {"X-IDENTITY-HEADER": "wrong"},
            401,
        ),
    ],
)
async def test_a_token_request_without_its_header_or_resource_is_refused(
    path: str, headers: dict[str, str], status: int
) -> None:
    async with (
        serve_identity(TokenRegistry(utc_now)) as identity,
        aiohttp.ClientSession() as session,
        session.get(identity.url + path, headers=headers) as response,
    ):
        assert response.status == status
        assert identity.issued.total() == 0
