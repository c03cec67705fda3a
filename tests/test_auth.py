"""Signatures against Microsoft's own signer, and tokens that are renewed in time."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from exporter.batch.auth import SharedKeyAuth, SignIns, TokenAuth, string_to_sign
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
    signer = SharedKeyAuth("myaccount", lambda: base64.b64decode(VECTORS["key"]), lambda: SIGNED_AT)
    assert await signer.headers(vector["url"]) == {
        "ocp-date": date,
        "Authorization": vector["authorization"],
    }


async def test_a_key_that_was_refused_is_read_again() -> None:
    keys = [b"first", b"first", b"second"]
    signer = SharedKeyAuth("myaccount", lambda: keys.pop(0), lambda: SIGNED_AT)
    first = await signer.headers("https://x/jobs")
    assert not signer.forget(first)
    assert await signer.headers("https://x/jobs") == first
    assert signer.forget(first)
    assert await signer.headers("https://x/jobs") != first


async def test_a_key_that_cannot_be_read_again_stays() -> None:
    def read() -> bytes:
        if keys:
            return keys.pop(0)
        raise ValueError("/run/key cannot be read")

    keys = [b"first"]
    signer = SharedKeyAuth("myaccount", read, lambda: SIGNED_AT)
    first = await signer.headers("https://x/jobs")
    assert not signer.forget(first)
    assert await signer.headers("https://x/jobs") == first


def account(name: str, endpoint: str = "https://a.westeurope.batch.azure.com") -> Account:
    auth = {
        "method": "client_secret",
        "tenant_id": "t",
        "client_id": "c",
        "client_secret_env": "SIGN_IN_SECRET",
    }
    return Account.model_validate({"name": name, "endpoint": endpoint, "auth": auth})


async def test_accounts_with_the_same_sign_in_share_their_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SIGN_IN_SECRET", "hush")
    sign_ins = SignIns()
    one, two = sign_ins.auth(account("one")), sign_ins.auth(account("two"))
    other = sign_ins.auth(account("three", "https://a.chinaeast.batch.chinacloudapi.cn"))
    monkeypatch.setenv("SIGN_IN_SECRET", "changed")
    changed = sign_ins.auth(account("four"))
    made = [one, two, other, changed]
    tokens = [each.tokens for each in made if isinstance(each, TokenAuth)]
    assert tokens[0] is tokens[1]
    assert len({id(each) for each in tokens}) == 3
    for each in made:
        await each.close()
    assert not sign_ins._tokens


@pytest.mark.parametrize(
    ("endpoint", "environment", "authority", "scope"),
    [
        (
            "https://a.westeurope.batch.azure.com",
            "",
            "login.microsoftonline.com",
            "https://batch.core.windows.net//.default",
        ),
        (
            "https://a.chinaeast.batch.chinacloudapi.cn",
            "",
            "login.chinacloudapi.cn",
            "https://batch.chinacloudapi.cn//.default",
        ),
        (
            "https://a.usgovvirginia.batch.usgovcloudapi.net",
            "",
            "login.microsoftonline.us",
            "https://batch.core.usgovcloudapi.net//.default",
        ),
        (
            "https://a.usgovvirginia.batch.usgovcloudapi.net",
            "https://login.example.org/",
            "https://login.example.org",
            "https://batch.core.usgovcloudapi.net//.default",
        ),
    ],
)
def test_each_cloud_has_its_authority_and_scope(
    endpoint: str,
    environment: str,
    authority: str,
    scope: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", environment)
    found = account("a", endpoint)
    assert (found.authority, found.scope) == (authority, scope)
