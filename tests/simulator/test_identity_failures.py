"""Failures of the identity endpoints, and their control over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError
from azure.identity.aio import ManagedIdentityCredential

from exporter.simulator import FAILURES, IDENTITY_PATH, Identity, TokenRegistry, serve_identity
from exporter.simulator.entra_errors import CODES
from exporter.simulator.identity import APP_SERVICE_PATH, IMDS_PATH
from exporter.simulator.identity_failures import ENDPOINTS
from exporter.simulator.server import utc_now

SCOPE = "https://batch.core.windows.net//.default"
RESOURCE = "https://batch.core.windows.net/"


class Client:
    """Asks each endpoint for a token by hand, and sets failures over HTTP."""

    def __init__(self, identity: Identity, session: aiohttp.ClientSession) -> None:
        self.identity = identity
        self.session = session

    async def ask(self, endpoint: str) -> aiohttp.ClientResponse:
        identity = self.identity
        if endpoint == "entra":
            form = {
                "grant_type": "client_credentials",
                "client_id": identity.client_id,
                "client_secret": identity.client_secret,
                "scope": SCOPE,
            }
            return await self.session.post(f"/{identity.tenant_id}/oauth2/v2.0/token", data=form)
        path = IMDS_PATH if endpoint == "imds" else APP_SERVICE_PATH
        headers = {"Metadata": "true", "X-IDENTITY-HEADER": identity.header}
        query = {"api-version": "2019-08-01", "resource": RESOURCE}
        return await self.session.get(path, params=query, headers=headers)

    async def control(self, method: str, body: str = "") -> tuple[int, Any]:
        answer = await self.session.request(method, IDENTITY_PATH, data=body)
        return answer.status, await answer.json()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with (
        serve_identity(TokenRegistry(utc_now)) as identity,
        aiohttp.ClientSession(identity.url) as session,
    ):
        yield Client(identity, session)


STATUSES = {
    "no-identity": 400,
    "header-refused": 401,
    "not-found": 404,
    "gone": 410,
    "throttled": 429,
    "server-error": 500,
    "unavailable": 503,
    "html": 200,
    "empty": 200,
    "blank-token": 200,
    "garbage": 200,
}


def status_of(failure: str) -> int:
    code = FAILURES[failure].summary.partition(":")[0]
    return STATUSES[failure] if failure in STATUSES else CODES[int(code)].status


ANSWERING = [
    (name, endpoint)
    for name, failure in FAILURES.items()
    for endpoint in failure.plays
    if name not in {"hang", "reset"}
]


@pytest.mark.parametrize(("failure", "endpoint"), ANSWERING)
async def test_a_failure_is_played_until_it_is_cleared(
    client: Client, failure: str, endpoint: str
) -> None:
    client.identity.failures.set(failure, endpoint)
    for _ in range(2):
        answer = await client.ask(endpoint)
        assert answer.status == status_of(failure)
        assert b'"access_token": "ey' not in await answer.read()
    assert client.identity.issued == {}
    assert client.identity.requests == {endpoint: 2}
    client.identity.failures.clear()
    assert (await (await client.ask(endpoint)).json())["access_token"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_a_throttled_client_is_told_how_long_to_wait(client: Client, endpoint: str) -> None:
    client.identity.failures.set("throttled")
    answer = await client.ask(endpoint)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "5")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_a_reset_gives_no_answer(client: Client, endpoint: str) -> None:
    client.identity.failures.set("reset")
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.ask(endpoint)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_an_endpoint_that_hangs_takes_the_request_and_does_not_answer(
    client: Client, endpoint: str
) -> None:
    client.identity.failures.set("hang")
    asking = asyncio.create_task(client.ask(endpoint))
    while not client.identity.failures.played:  # noqa: ASYNC110 - a test of another task
        await asyncio.sleep(0.01)
    assert not asking.done()
    asking.cancel()


async def test_a_failure_of_one_endpoint_leaves_the_others(client: Client) -> None:
    client.identity.failures.set("server-error", "imds")
    found = [(await client.ask(endpoint)).status for endpoint in ENDPOINTS]
    assert found == [200, 500, 200]


async def test_a_failure_may_begin_after_some_tokens(client: Client) -> None:
    client.identity.failures.set("throttled", after=2)
    found = [(await client.ask("entra")).status for _ in range(4)]
    assert found == [200, 200, 429, 429]
    times = [request.at for request in client.identity.log]
    assert len(times) == 4
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("failure", "endpoint", "error"),
    [
        ("no-identity", "imds", CredentialUnavailableError),
        ("no-identity", "app_service", ClientAuthenticationError),
        ("html", "imds", CredentialUnavailableError),
        ("server-error", "imds", ClientAuthenticationError),
        ("header-refused", "app_service", ClientAuthenticationError),
    ],
)
async def test_a_failure_of_a_managed_identity_reaches_azure_identity(
    client: Client,
    failure: str,
    endpoint: str,
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    identity = client.identity
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", identity.url)
    if endpoint == "app_service":
        monkeypatch.setenv("IDENTITY_ENDPOINT", identity.app_service_url)
        monkeypatch.setenv("IDENTITY_HEADER", identity.header)
    identity.failures.set(failure)
    async with ManagedIdentityCredential(retry_total=0, retry_status=0) as credential:
        with pytest.raises(error):
            await credential.get_token(SCOPE)
        assert identity.failures.played == {failure: 1}
        identity.failures.clear()
        assert (await credential.get_token(SCOPE)).token


async def test_the_control_shows_sets_and_clears(client: Client) -> None:
    status, found = await client.control("GET")
    assert status == 200
    assert found["active"] is None
    assert found["failures"].keys() == FAILURES.keys()
    assert found["failures"]["gone"]["endpoints"] == ["imds"]
    body = '{"failure": "throttled", "endpoint": "entra", "after": 1, "lifetime": 300}'
    plan = {"failure": "throttled", "endpoint": "entra", "after": 1}
    status, found = await client.control("PUT", body)
    assert (status, found["active"], found["lifetime"]) == (200, plan, 300)
    assert client.identity.lifetime == timedelta(minutes=5)
    assert (await (await client.ask("entra")).json())["expires_in"] == 300
    assert (await client.ask("entra")).status == 429
    _, found = await client.control("DELETE")
    assert found["active"] is None
    assert (found["requests"], found["issued"]) == ({"entra": 2}, {"entra": 1})
    assert found["played"] == {"throttled": 1}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("", "the body is not JSON"),
        ("[]", "the body has no failure: write"),
        ("{}", "the body has no failure: write"),
        ('{"failure": 5}', "failure 5: write a text"),
        ('{"failure": "secret-expird"}', "did you mean secret-expired?"),
        ('{"failure": "holiday"}', "GET /simulator/identity names all"),
        ('{"failure": "gone", "endpoint": "entra"}', "entra does not fail with gone: imds does"),
        ('{"failure": "gone", "endpoint": "imd"}', "there is no endpoint imd: did you mean imds?"),
        ('{"failure": "gone", "after": -1}', "after -1: write 0 or more"),
        ('{"failure": "gone", "after": true}', "after true: write a whole number"),
        ('{"failure": "gone", "lifetime": 0}', "lifetime 0: write a number of seconds"),
        ('{"lifetime": 5, "after": 1}', "after goes with a failure"),
        ('{"failure": "gone", "share": 1}', "share is unknown: use failure"),
    ],
)
async def test_what_is_no_failure_is_refused_and_changes_nothing(
    client: Client, body: str, error: str
) -> None:
    client.identity.failures.set("hang")
    before = client.identity.failures.active
    status, answer = await client.control("PUT", body)
    assert status == 400
    assert error in answer["error"]
    assert client.identity.failures.active is before
    assert client.identity.lifetime == timedelta(hours=1)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", IDENTITY_PATH, 405), ("GET", "/simulator/other", 404)]
)
async def test_other_paths_and_methods_of_the_control_are_refused(
    client: Client, method: str, path: str, status: int
) -> None:
    answer = await client.session.request(method, path)
    assert (answer.status, "use" in (await answer.json())["error"]) == (status, True)
