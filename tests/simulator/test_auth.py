"""SharedKey as the service checks it, against signatures made by Microsoft's own signer."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from exporter.simulator import Account, BatchError, TokenRegistry, make_account
from exporter.simulator.signatures import (
    BATCH_AUDIENCE,
    Authenticator,
    SignedRequest,
    signature,
    string_to_sign,
)

FILE = json.loads((Path(__file__).parent / "sharedkey_vectors.json").read_text())
ACCOUNT = Account(FILE["account"], FILE["key"])
SENT = datetime(2014, 7, 29, 21, 49, 13, tzinfo=UTC)


def request_of(vector: dict[str, Any], **changes: str) -> SignedRequest:
    parts = urlsplit(vector["url"])
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    headers["authorization"] = vector["authorization"]
    return SignedRequest(
        changes.pop("method", vector["method"]),
        changes.pop("raw_path", parts.path),
        changes.pop("raw_query", parts.query),
        headers | changes,
    )


FAR = SENT + timedelta(days=300)


def authenticator(now: datetime = SENT) -> Authenticator:
    return Authenticator(ACCOUNT, TokenRegistry(lambda: now), lambda: (now,))


def refusal(request: SignedRequest, now: datetime = SENT) -> BatchError:
    with pytest.raises(BatchError) as caught:
        authenticator(now).check(request)
    assert caught.value.code == "AuthenticationFailed"
    return caught.value


@pytest.mark.parametrize("vector", FILE["vectors"], ids=lambda vector: vector["url"][40:])
def test_every_signature_of_the_official_signer_is_accepted(vector: dict[str, Any]) -> None:
    mixed_case = "timeOut" in vector["url"]
    text = string_to_sign(ACCOUNT.name, request_of(vector), lower_names=not mixed_case)
    assert text == vector["string_to_sign"]
    assert vector["authorization"] == f"SharedKey {ACCOUNT.name}:{signature(ACCOUNT, text)}"
    authenticator().check(request_of(vector))


@pytest.mark.parametrize(
    "changes",
    [
        {"raw_path": "/jobs/job-2/taskcounts"},
        {"raw_query": "api-version=2024-02-01.19.0"},
        {"raw_query": "api-version=2024-07-01.20.0&maxresults=5"},
        {"method": "HEAD"},
        {"if-none-match": "0x8D"},
        {"ocp-date": "Tue, 29 Jul 2014 21:49:14 GMT"},
        {"authorization": "SharedKey myaccount:"},
        {"authorization": "SharedKey myaccount:not base64 \u00e9"},
        {"authorization": "SharedKey other:iG/t2Tgu0doOR2znywatNQRta6VxWpOb7h/cZnKVhK0="},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"authorization": ""},
    ],
    ids=str,
)
def test_a_request_that_was_not_signed_like_this_is_refused(changes: dict[str, str]) -> None:
    assert refusal(request_of(FILE["vectors"][1], **changes)).status == 403


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_signature_is_good_for_15_minutes_either_way(minutes: int) -> None:
    request = request_of(FILE["vectors"][0])
    assert "15 minutes" in refusal(request, SENT + timedelta(minutes=minutes)).values[0][1]
    authenticator(SENT + timedelta(minutes=minutes // 16 * 14)).check(request)
    by_either = Authenticator(ACCOUNT, TokenRegistry(lambda: SENT), lambda: (SENT, FAR))
    by_either.check(request)


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_a_signature_needs_a_date(date: str) -> None:
    request = request_of(FILE["vectors"][0], **{"ocp-date": date})
    assert "date" in refusal(request).values[0][1]


def test_the_key_follows_from_the_seed() -> None:
    assert make_account(3).key == make_account(3).key != make_account(4).key


def bearer(token: str) -> SignedRequest:
    return SignedRequest("GET", "/jobs", "", {"authorization": f"Bearer {token}"})


def test_a_token_is_good_until_it_expires() -> None:
    now = [SENT]
    tokens = TokenRegistry(lambda: now[0])
    check = Authenticator(ACCOUNT, tokens, lambda: (now[0],)).check
    token = tokens.issue(BATCH_AUDIENCE, timedelta(minutes=5))
    check(bearer(token))
    now[0] += timedelta(minutes=5)
    with pytest.raises(BatchError) as caught:
        check(bearer(token))
    assert caught.value.status == 401
    assert "expired" in caught.value.values[0][1]


def test_a_token_for_the_audience_without_its_slash_is_refused() -> None:
    tokens = TokenRegistry(lambda: SENT)
    token = tokens.issue("https://batch.core.windows.net", timedelta(hours=1))
    with pytest.raises(BatchError) as caught:
        tokens.verify(token)
    key, detail = caught.value.values[0]
    assert (caught.value.status, key) == (403, "AuthenticationErrorDetail")
    assert detail == (
        "The access token has been obtained from wrong audience or resource "
        "'https://batch.core.windows.net'. It should exactly match (including forward slash) with "
        "one of the allowed audiences 'https://batch.core.windows.net/'."
    )


def test_a_made_up_token_is_refused() -> None:
    assert refusal(bearer("made-up")).status == 401
