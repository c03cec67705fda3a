"""What is said to be wrong with an account, and how to mend it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import pytest
from multidict import MultiDict

from exporter import config
from exporter.batch import budget, errors
from exporter.diagnosis.accounts import diagnose
from exporter.exposition.body import Format
from exporter.service.service import open_service
from exporter.simulator import SCENARIOS, Clock, Faults, Rule, Simulation, World, serve
from exporter.web.api.status_views import status
from exporter.web.pages import PAGES, Links
from tests.process import finish

START = datetime(2026, 6, 1, 12, tzinfo=UTC)

PAGE = (Path(__file__).parent.parent / "docs" / "check.md").read_text()
EXPLAINED = frozenset(
    re.findall(
        r"`([a-z_]+)`",
        PAGE.partition("## Causes")[2].partition("## For programs")[0].partition("|---|---|")[2],
    )
)
"""The causes that docs/check.md explains."""


def configured(name: str, method: str, **auth: str) -> config.Account:
    return config.Account.model_validate(
        {
            "name": name,
            "endpoint": "https://acc.westeurope.batch.azure.com",
            "auth": {"method": method, **auth},
        }
    )


KEYED = configured("acc", "shared_key", key_env="KEY")
NAMED_OTHERWISE = configured("other", "shared_key", key_env="KEY")
SIGNED_IN = configured(
    "acc", "client_secret", tenant_id="t", client_id="c", client_secret_env="SECRET"
)


def key_of(simulation: Simulation, folder: Path) -> dict[str, str]:
    file = folder / "key"
    file.write_text(simulation.account_key)
    file.chmod(0o600)
    return {"method": "shared_key", "key_file": str(file)}


def refused(detail: str) -> errors.PollError:
    values = (("AuthenticationErrorDetail", detail),)
    return errors.AuthenticationFailed(403, "AuthenticationFailed", "Server failed.", values)


def no_token(code: int, text: str = "…") -> errors.PollError:
    return errors.CredentialError(f"AADSTS{code}: {text}", f"AADSTS{code}")


@pytest.mark.parametrize(
    ("error", "account", "cause", "cure"),
    [
        (errors.ConnectionFailed("x", "dns"), KEYED, "dns", "account and region are spelled right"),
        (errors.ConnectionFailed("x", "tls"), KEYED, "tls", "SSL_CERT_FILE"),
        (errors.ConnectionFailed("x"), KEYED, "connection", "HTTPS_PROXY"),
        (errors.ConnectionFailed("x", "proxy"), KEYED, "proxy", "NO_PROXY"),
        (errors.ConnectionFailed("x", "credentials"), KEYED, "proxy", "USER:PASSWORD@HOST"),
        (errors.ServiceError(407), KEYED, "proxy", "USER:PASSWORD@HOST"),
        (errors.RequestTimeout("x"), KEYED, "timeout", "request_timeout"),
        (
            refused("The MAC signature is not the same"),
            KEYED,
            "key",
            "one of the account's two keys",
        ),
        (refused("The MAC signature…"), NAMED_OTHERWISE, "account_name", "make them agree"),
        (refused("The date header is missing"), KEYED, "clock", "NTP"),
        (refused("type of authentication SharedKey is not allowed"), KEYED, "key", "use a token"),
        (refused("wrong audience or resource"), SIGNED_IN, "scope", "double slash"),
        (refused("token is of another tenant"), SIGNED_IN, "tenant", "tenant_id"),
        (refused("The access token is not valid."), SIGNED_IN, "token", "one tenant and cloud"),
        (no_token(90002), SIGNED_IN, "tenant", "tenant_id"),
        (no_token(700016), SIGNED_IN, "client_id", "client_id"),
        (no_token(7000215), SIGNED_IN, "client_secret", "the secret's value"),
        (no_token(7000222), SIGNED_IN, "client_secret", "make a new secret"),
        (no_token(700027), SIGNED_IN, "certificate", "thumbprints"),
        (no_token(500011), SIGNED_IN, "scope", "double slash"),
        (no_token(999999), SIGNED_IN, "credential", "belong together"),
        (errors.Forbidden(403, "AuthorizationFailure"), SIGNED_IN, "role", "Account Reader"),
        (errors.Forbidden(403, "Forbidden"), KEYED, "network", "network rules"),
        (
            errors.Forbidden(403, "InsufficientAccountPermissions"),
            KEYED,
            "permission",
            "the ids of the request",
        ),
        (errors.Forbidden(403, "AccountIsDisabled"), KEYED, "account_disabled", "subscription"),
        (errors.TooManyRequests(429), KEYED, "throttled", "requests_per_second"),
        (errors.ServiceError(404), KEYED, "endpoint", "{account}.{region}"),
        (errors.ServiceError(301), KEYED, "endpoint", "{account}.{region}"),
        (errors.UnsupportedVersion(400), KEYED, "api_version", "newest known is 2026-10-01"),
        (errors.ServiceError(500, "InternalError"), KEYED, "service", "passes"),
        (errors.InvalidResponse("x"), KEYED, "invalid", "what answers"),
        (errors.TooLarge("x"), KEYED, "too_large", "leave the collector tasks out"),
        (errors.PollError("x"), KEYED, "internal", "report it"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_each_error_is_known_by_a_cause_and_has_a_cure(
    error: errors.PollError, account: config.Account, cause: str, cure: str
) -> None:
    diagnose(account, error)
    assert error.cause == cause
    assert cure in error.cure
    assert cause in EXPLAINED


@pytest.mark.parametrize(
    ("fault", "cause"),
    [("authentication-failed", "key"), ("html-instead", "invalid"), ("not-found-html", "endpoint")],
)
async def test_why_an_account_is_down_is_a_metric_while_it_is(
    fault: str, cause: str, make_config: Callable[..., config.Config], tmp_path: Path
) -> None:
    faults = Faults(Rule(fault))
    world = World(SCENARIOS["steady"], seed=2, jobs=2, nodes=2, start=START)
    async with serve(world, Clock(START, speed=0.0), interceptors=(faults,)) as simulation:
        made = make_config(simulation.endpoint, name="simulated", auth=key_of(simulation, tmp_path))
        async with open_service(made) as service:
            await service.run_once()
            text = service.exposition.body(Format.TEXT).plain.decode()
            why = f'azure_batch_account_failure{{account="simulated",cause="{cause}"}} 1\n'
            assert why in text
            assert 'azure_batch_up{account="simulated"} 0\n' in text
            faults.clear()
            await service.run_once()
            text = service.exposition.body(Format.TEXT).plain.decode()
            assert "azure_batch_account_failure{" not in text
            assert 'azure_batch_up{account="simulated"} 1\n' in text


@pytest.mark.parametrize(
    ("fault", "operation", "causes"),
    [
        ("authentication-failed", None, {"key"}),
        ("forbidden", None, {"network"}),
        ("html-instead", None, {"invalid"}),
        # Some requests are answered with 503, other connections break.
        ("outage", None, {"service", "connection"}),
        ("forbidden", "Account_ListPoolNodeCounts", {"permission"}),
        ("insufficient-permissions", None, {"permission"}),
    ],
)
async def test_metric_log_api_and_page_name_one_cause_and_cure(
    fault: str,
    operation: str | None,
    causes: set[str],
    make_config: Callable[..., config.Config],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "RETRIES", 0)  # they would go on for half a minute
    faults = Faults(Rule(fault, operation=operation))
    world = World(SCENARIOS["steady"], seed=2, jobs=2, nodes=2, start=START)
    async with serve(world, Clock(START, speed=0.0), interceptors=(faults,)) as simulation:
        made = make_config(simulation.endpoint, name="simulated", auth=key_of(simulation, tmp_path))
        async with open_service(made) as service:
            await service.run_once()
            text = service.exposition.body(Format.TEXT).plain.decode()
            (account,) = (await status(service)).accounts
            page = unescape(await PAGES["/"](service, MultiDict(), Links("/metrics")))
            faults.clear()
            await service.run_once()
            (mended,) = (await status(service)).accounts
    assert account.cause in causes
    told = {(each.cause, each.cure) for each in caplog.records if hasattr(each, "cure")}
    assert (account.cause, account.cure) in told
    traces = {each.trace for each in caplog.records if hasattr(each, "trace")}
    assert account.trace in traces and "client-request-id " in account.trace
    why = f'azure_batch_account_failure{{account="simulated",cause="{account.cause}"}} 1\n'
    assert (why in text) == (account.up is False)
    for line in (
        account.error,
        f"Cause: {account.cause}",
        f"What to do: {account.cure}",
        f"For support: {account.trace}",
    ):
        assert f">{line}</p>" in page
    assert (mended.up, mended.error, mended.cause, mended.cure) == (True, None, None, None)


async def test_the_log_says_cause_and_cure(tmp_path: Path) -> None:
    world = World(SCENARIOS["steady"], seed=2, jobs=2, nodes=2, start=START)
    async with serve(world, Clock(START, speed=0.0)) as simulation:
        account = {
            "name": "another",
            "endpoint": simulation.endpoint,
            "auth": {"method": "shared_key", "key_env": "KEY"},
        }
        file = tmp_path / "config.yaml"
        file.write_text(json.dumps({"accounts": [account]}))
        status, _, logged = await finish(
            *("scrape", f"--config.file={file}", "--log.format=json"), KEY=simulation.account_key
        )
    (line,) = [json.loads(line) for line in logged.splitlines()]
    assert (status, line["level"], line["account"]) == (1, "WARNING", "another")
    assert line["cause"] == "account_name"
    assert line["cure"].startswith("set name to the Batch account's own")
