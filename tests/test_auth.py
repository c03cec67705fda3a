"""Signatures against Microsoft's own signer, and tokens that are renewed in time."""

from __future__ import annotations

import base64
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessTokenInfo
from azure.core.exceptions import ClientAuthenticationError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from exporter.batch import auth
from exporter.batch.auth import (
    FORGET_AT_MOST_EVERY,
    REFRESH_BEFORE,
    SharedKeyAuth,
    TokenAuth,
    string_to_sign,
)
from exporter.batch.errors import CredentialError
from exporter.config import Account
from tests.conftest import FIXTURES

VECTORS = json.loads((FIXTURES / "sharedkey_vectors.json").read_text())
SIGNED_AT = 1406670553.0  # Tue, 29 Jul 2014 21:49:13 GMT, the date of all vectors


@pytest.mark.parametrize(
    "vector",
    [vector for vector in VECTORS["vectors"] if vector["method"] == "GET"],
    ids=lambda vector: vector["url"],
)
async def test_signatures_are_those_of_microsofts_own_signer(vector: dict[str, Any]) -> None:
    date = vector["headers"]["ocp-date"]
    assert string_to_sign("myaccount", vector["url"], date) == vector["string_to_sign"]
    signer = SharedKeyAuth("myaccount", base64.b64decode(VECTORS["key"]), lambda: SIGNED_AT)
    assert await signer.headers(vector["url"]) == {
        "ocp-date": date,
        "Authorization": vector["authorization"],
    }


class Credential:
    """Gives tokens that hold an hour; fails while `broken`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.scopes: list[tuple[str, ...]] = []
        self.broken = False
        self.closed = False
        self.refresh_in: int | None = None

    async def get_token_info(self, *scopes: str, options: Any = None) -> AccessTokenInfo:
        self.scopes.append(scopes)
        if self.broken:
            raise ClientAuthenticationError("no managed identity here\nmore than one line")
        refresh_on = int(self.now) + self.refresh_in if self.refresh_in else None
        number = len(self.scopes)
        return AccessTokenInfo(f"token-{number}", int(self.now) + 3600, refresh_on=refresh_on)

    async def close(self) -> None:
        self.closed = True


def make() -> tuple[Credential, TokenAuth]:
    credential = Credential()
    token_auth = TokenAuth(
        lambda: credential,  # type: ignore[arg-type, return-value]
        "https://batch.core.windows.net//.default",
        10.0,
        lambda: credential.now,
    )
    return credential, token_auth


async def bearer(token_auth: TokenAuth) -> str:
    return (await token_auth.headers("https://x"))["Authorization"]


async def test_a_token_serves_many_requests_and_is_asked_for_with_the_double_slash() -> None:
    credential, token_auth = make()
    assert {await bearer(token_auth) for _ in range(5)} == {"Bearer token-1"}
    assert credential.scopes == [("https://batch.core.windows.net//.default",)]


async def test_a_token_is_renewed_before_it_expires() -> None:
    credential, token_auth = make()
    await bearer(token_auth)
    credential.now += 3600 - REFRESH_BEFORE - 1
    assert await bearer(token_auth) == "Bearer token-1"
    credential.now += 1
    assert await bearer(token_auth) == "Bearer token-2"


async def test_a_token_is_renewed_when_its_issuer_says_so() -> None:
    credential, token_auth = make()
    credential.refresh_in = 1800
    await bearer(token_auth)
    credential.now += 1800
    assert await bearer(token_auth) == "Bearer token-2"


async def test_a_renewal_that_fails_does_no_harm_while_the_token_is_good() -> None:
    credential, token_auth = make()
    await bearer(token_auth)
    credential.broken = True
    credential.now += 3599
    assert await bearer(token_auth) == "Bearer token-1"
    credential.now += 1
    with pytest.raises(CredentialError, match=r"^no managed identity here$"):
        await bearer(token_auth)


async def test_a_refused_token_is_not_used_again() -> None:
    credential, token_auth = make()
    refused = await token_auth.headers("https://x")
    assert token_auth.forget(refused)
    assert token_auth.forget(refused)  # refused twice at the same time: one other token is enough
    assert await bearer(token_auth) == "Bearer token-2"
    assert token_auth.forget(refused)
    assert await bearer(token_auth) == "Bearer token-2"
    # A credential keeps its token: another one was made.
    assert credential.closed
    assert not token_auth.forget({"Authorization": "Bearer token-2"})
    credential.now += FORGET_AT_MOST_EVERY
    assert token_auth.forget({"Authorization": "Bearer token-2"})
    assert await bearer(token_auth) == "Bearer token-3"


async def test_a_secret_that_is_gone_when_a_token_was_refused_is_told() -> None:
    credential = Credential()
    made: list[Any] = [credential]

    def make_credential() -> Any:
        if not made:
            raise ValueError("/run/secret cannot be read")
        return made.pop()

    token_auth = TokenAuth(make_credential, "https://x/.default", 10.0, lambda: 0.0)
    assert token_auth.forget(await token_auth.headers("https://x"))
    with pytest.raises(CredentialError, match="/run/secret cannot be read"):
        await bearer(token_auth)
    made.append(credential)
    assert await bearer(token_auth) == "Bearer token-2"


async def test_closing_closes_the_credential() -> None:
    credential, token_auth = make()
    await token_auth.close()
    assert credential.closed


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, "DefaultAzureCredential"),
        ({"method": "default", "client_id": "c", "tenant_id": "t"}, "DefaultAzureCredential"),
        ({"method": "managed_identity"}, "ManagedIdentityCredential"),
        ({"method": "managed_identity", "client_id": "c"}, "ManagedIdentityCredential"),
        (
            {"method": "workload_identity", "client_id": "c", "tenant_id": "t"},
            "WorkloadIdentityCredential",
        ),
        (
            {
                "method": "client_secret",
                "client_id": "c",
                "tenant_id": "t",
                "client_secret_env": "SECRET",
            },
            "ClientSecretCredential",
        ),
        ({"method": "azure_cli"}, "AzureCliCredential"),
    ],
    ids=lambda value: str(value),
)
async def test_each_method_uses_the_credential_of_its_name(
    settings: dict[str, str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hush")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", "/nowhere")
    built = auth.build(
        Account.model_validate(
            {"name": "a", "endpoint": "https://a.westeurope.batch.azure.com", "auth": settings}
        )
    )
    assert isinstance(built, TokenAuth)
    assert type(built._credential).__name__ == kind
    await built.close()


@pytest.mark.parametrize(
    ("endpoint", "authority"),
    [
        ("https://a.westeurope.batch.azure.com", "login.microsoftonline.com"),
        ("https://a.chinaeast.batch.chinacloudapi.cn", "login.chinacloudapi.cn"),
        ("https://a.usgovvirginia.batch.usgovcloudapi.net", "login.microsoftonline.us"),
    ],
)
def test_sovereign_clouds_sign_in_at_their_own_authority(
    endpoint: str, authority: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_AUTHORITY_HOST", raising=False)
    account = Account.model_validate({"name": "a", "endpoint": endpoint})
    assert account.authority == authority
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.example/")
    assert account.authority == "https://login.example"


async def test_a_certificate_is_read_from_its_file(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "exporter")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    settings = {
        "method": "client_certificate",
        "client_id": "c",
        "tenant_id": "t",
        "certificate_file": str(file),
    }
    account = {"name": "a", "endpoint": "https://a.westeurope.batch.azure.com", "auth": settings}
    built = auth.build(Account.model_validate(account))
    assert isinstance(built, TokenAuth)
    assert type(built._credential).__name__ == "CertificateCredential"
    await built.close()
