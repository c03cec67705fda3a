"""The stand-in of Microsoft Entra ID, as azure-identity's own credentials see it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity.aio import (
    CertificateCredential,
    ClientSecretCredential,
    WorkloadIdentityCredential,
)

from exporter.cli.certificate import write_client_certificate
from exporter.simulator import (
    FAILURES,
    Application,
    FederatedCredential,
    Identity,
    TokenRegistry,
    serve_identity,
)
from exporter.simulator.entra_errors import CODES
from exporter.simulator.server import utc_now
from tests.certificates import Authority

SCOPE = "https://batch.core.windows.net//.default"
HOUR = timedelta(hours=1)


class Entra:
    """The served stand-in, and credentials that trust it and never retry."""

    def __init__(self, identity: Identity, ca: Path) -> None:
        self.identity = identity
        self._ca = ca

    @property
    def _common(self) -> dict[str, Any]:
        return {
            "authority": self.identity.authority,
            "connection_verify": str(self._ca),
            "retry_total": 0,
        }

    def secret(self, **changed: str) -> ClientSecretCredential:
        identity = self.identity
        ids = {
            "tenant_id": identity.tenant_id,
            "client_id": identity.client_id,
            "client_secret": identity.client_secret,
        }
        return ClientSecretCredential(**(ids | changed), **self._common)

    def certificate(self, file: Path) -> CertificateCredential:
        identity = self.identity
        return CertificateCredential(
            identity.tenant_id, identity.client_id, certificate_path=str(file), **self._common
        )

    def workload(self, file: Path) -> WorkloadIdentityCredential:
        identity = self.identity
        return WorkloadIdentityCredential(
            tenant_id=identity.tenant_id,
            client_id=identity.client_id,
            token_file_path=str(file),
            **self._common,
        )

    async def post(self, **form: str) -> tuple[int, Any]:
        """A request for a token by hand."""
        url = f"{self.identity.authority}/{self.identity.tenant_id}/oauth2/v2.0/token"
        trust = ssl.create_default_context(cafile=self._ca)
        async with aiohttp.ClientSession() as session:
            answer = await session.post(url, data=form, ssl=trust)
            return answer.status, await answer.json()


@pytest.fixture
async def entra(tmp_path: Path) -> AsyncIterator[Entra]:
    authority = Authority(tmp_path)
    async with serve_identity(TokenRegistry(utc_now), tls=authority.serve()) as identity:
        yield Entra(identity, authority.file)


async def refused(credential: Any, scope: str = SCOPE) -> str:
    """The message with which azure-identity says that it got no token."""
    async with credential:
        with pytest.raises(ClientAuthenticationError) as caught:
            await credential.get_token_info(scope)
    return str(caught.value)


async def test_a_client_secret_gets_a_token_that_the_account_takes(entra: Entra) -> None:
    entra.identity.lifetime = timedelta(minutes=5)
    async with entra.secret() as credential:
        token = await credential.get_token_info(SCOPE)
    entra.identity.tokens.verify(token.token)
    assert token.refresh_on is None
    assert token.expires_on - utc_now().timestamp() == pytest.approx(300, abs=60)
    assert entra.identity.issued == entra.identity.requests == {"entra": 1}
    assert [request.endpoint for request in entra.identity.log] == ["entra"]


async def test_a_long_token_says_when_to_renew_it(entra: Entra) -> None:
    entra.identity.lifetime = timedelta(hours=24)
    async with entra.secret() as credential:
        token = await credential.get_token_info(SCOPE)
    assert token.refresh_on is not None
    assert token.expires_on - token.refresh_on == 12 * 3600


@pytest.mark.parametrize("kind", ["pem", "pfx"])
async def test_a_registered_certificate_gets_a_token(
    entra: Entra, kind: str, tmp_path: Path
) -> None:
    files = dict(zip(("pem", "pfx"), write_client_certificate(tmp_path), strict=True))
    entra.identity.application.certificates.append(files["pem"].read_bytes())
    async with entra.certificate(files[kind]) as credential:
        token = await credential.get_token_info(SCOPE)
    entra.identity.tokens.verify(token.token)


async def test_a_federated_token_gets_a_token(entra: Entra, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(FederatedCredential().token(utc_now()))
    async with entra.workload(file) as credential:
        token = await credential.get_token_info(SCOPE)
    entra.identity.tokens.verify(token.token)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"tenant_id": "another"}, 90002),
        ({"client_id": "another"}, 700016),
        ({"client_secret": "another"}, 7000215),
        ({"client_secret": "of last year"}, 7000222),
    ],
)
async def test_wrong_credentials_are_refused_with_the_services_code(
    entra: Entra, changed: dict[str, str], code: int
) -> None:
    entra.identity.application.expired_secrets.append("of last year")
    assert f"AADSTS{code}: " in await refused(entra.secret(**changed))


@pytest.mark.parametrize(
    ("scope", "code"),
    [
        ("https://batch.example/.default", 500011),
        ("https://batch.core.windows.net//user_impersonation", 1002012),
        ("a/.default b/.default", 70011),
    ],
)
async def test_a_wrong_scope_is_refused_with_the_services_code(
    entra: Entra, scope: str, code: int
) -> None:
    assert f"AADSTS{code}: " in await refused(entra.secret(), scope)


async def test_a_secret_that_was_replaced_is_refused_and_the_new_one_is_taken(
    entra: Entra,
) -> None:
    old = entra.secret()
    entra.identity.application.secrets[:] = ["new"]
    assert "AADSTS7000215: " in await refused(old)
    async with entra.secret() as credential:
        assert (await credential.get_token_info(SCOPE)).token


@pytest.mark.parametrize(
    ("lifetime", "is_registered", "said"),
    [
        (HOUR, False, "is not registered"),
        (-HOUR, True, "is expired"),
    ],
)
async def test_a_certificate_that_is_unknown_or_has_expired_is_refused(
    entra: Entra, lifetime: timedelta, is_registered: bool, said: str, tmp_path: Path
) -> None:
    pem, _ = write_client_certificate(tmp_path, lifetime)
    if is_registered:
        entra.identity.application.certificates.append(pem.read_bytes())
    message = await refused(entra.certificate(pem))
    assert "AADSTS700027: " in message
    assert said in message


async def test_an_assertion_with_another_key_is_refused(entra: Entra, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    pem, _ = write_client_certificate(tmp_path)
    other, _ = write_client_certificate(tmp_path / "other")
    entra.identity.application.certificates.append(pem.read_bytes())
    certificate = pem.read_bytes().partition(b"-----BEGIN CERT")
    mixed = tmp_path / "mixed.pem"
    mixed.write_bytes(other.read_bytes().partition(b"-----BEGIN CERT")[0])
    mixed.write_bytes(mixed.read_bytes() + b"".join(certificate[1:]))
    message = await refused(entra.certificate(mixed))
    assert "AADSTS700027: " in message
    assert "did not verify" in message


async def test_an_assertion_out_of_its_time_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pem, _ = write_client_certificate(tmp_path, timedelta(days=3))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    tokens = TokenRegistry(utc_now)
    async with serve_identity(tokens, tls=authority.serve(), now=lambda: tomorrow) as identity:
        identity.application.certificates.append(pem.read_bytes())
        message = await refused(Entra(identity, authority.file).certificate(pem))
    assert "AADSTS700024: " in message


async def test_an_assertion_of_another_application_is_refused(entra: Entra, tmp_path: Path) -> None:
    pem, _ = write_client_certificate(tmp_path)
    other = Application(client_id="other", certificates=[pem.read_bytes()])
    entra.identity.applications.append(other)
    credential = entra.certificate(pem)
    assertion = credential._client._get_client_certificate_assertion(credential._certificate)
    status, answer = await entra.post(
        grant_type="client_credentials",
        client_id="other",
        scope=SCOPE,
        client_assertion=assertion,
        client_assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    )
    await credential.close()
    assert (status, answer["error_codes"]) == (401, [700021])


@pytest.mark.parametrize(
    ("shown", "code"),
    [
        (FederatedCredential(issuer="https://other.example/"), 700211),
        (FederatedCredential(subject="system:serviceaccount:other:other"), 700213),
        (FederatedCredential(audience="other"), 700212),
    ],
)
async def test_a_federated_token_that_does_not_match_is_refused(
    entra: Entra, shown: FederatedCredential, code: int, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(shown.token(utc_now()))
    assert f"AADSTS{code}: " in await refused(entra.workload(file))


async def test_a_federated_token_is_refused_where_none_is_registered_or_it_has_expired(
    entra: Entra, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(FederatedCredential().token(utc_now() - 2 * HOUR))
    assert "AADSTS700024: " in await refused(entra.workload(file))
    entra.identity.application.federated.clear()
    assert "AADSTS70021: " in await refused(entra.workload(file))


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({}, 900144),
        ({"grant_type": "password"}, 900144),
        ({"grant_type": "password", "client_id": "x", "scope": SCOPE}, 70003),
        ({"grant_type": "client_credentials", "client_id": "CLIENT", "scope": SCOPE}, 7000216),
        (
            {
                "grant_type": "client_credentials",
                "client_id": "CLIENT",
                "scope": SCOPE,
                "client_assertion": "no.jwt.é",
            },
            50027,
        ),
    ],
)
async def test_a_malformed_request_is_refused(
    entra: Entra, form: dict[str, str], code: int
) -> None:
    form = {name: value.replace("CLIENT", entra.identity.client_id) for name, value in form.items()}
    status, answer = await entra.post(**form)
    assert (status, answer["error_codes"]) == (CODES[code].status, [code])


async def test_an_error_has_the_members_that_the_service_sends(entra: Entra) -> None:
    status, answer = await entra.post(
        grant_type="client_credentials",
        client_id=entra.identity.client_id,
        scope=SCOPE,
        client_secret="another",
    )
    assert status == 401
    assert answer["error"] == "invalid_client"
    ending = (
        f" Trace ID: {answer['trace_id']} Correlation ID: {answer['correlation_id']} "
        f"Timestamp: {answer['timestamp']}"
    )
    assert answer["error_description"].startswith("AADSTS7000215: Invalid client secret")
    assert answer["error_description"].endswith(ending)


@pytest.mark.parametrize(
    "failure",
    [f for f in FAILURES.values() if f.summary.partition(":")[0] in {str(c) for c in CODES}],
    ids=lambda failure: failure.name,
)
async def test_each_code_that_is_played_reaches_azure_identity(entra: Entra, failure: Any) -> None:
    entra.identity.failures.set(failure.name)
    code = failure.summary.partition(":")[0]
    assert f"AADSTS{code}: " in await refused(entra.secret())
    assert entra.identity.failures.played == {failure.name: 1}
    entra.identity.failures.clear()
    async with entra.secret() as credential:
        assert (await credential.get_token_info(SCOPE)).token
