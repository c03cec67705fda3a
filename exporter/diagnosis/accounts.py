"""The probable cause of an account's failure, as a fixed word, and what to do about it.

An error answer of the service says why it refused a request. An operator needs to know what to
change: the endpoint, the name, a secret, a role, a clock.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from exporter.batch.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    CredentialError,
    Forbidden,
    InvalidResponse,
    JobGone,
    PollError,
    RequestTimeout,
    ServiceError,
    Throttled,
    TooLarge,
    TooManyRequests,
    UnsupportedVersion,
)
from exporter.config import Account
from exporter.config.clouds import CLOUDS
from exporter.config.models import API_VERSION, NEWEST_API_VERSION
from exporter.diagnosis import sign_in_causes

READER_ROLE = "Azure Batch Account Reader"
"""The built-in role with the fewest rights that allows all that the exporter reads."""

BATCH_DOMAINS = tuple(cloud.domain for cloud in CLOUDS)

_ENDPOINT_CURE = (
    "copy the account's URL from its overview in the portal,"
    " https://{account}.{region}.batch.azure.com"
)

CauseAndCure = tuple[str, str]
"""A fixed word, listed in docs/check.md, and a phrase that says what to do."""

_SCOPE = (
    "scope",
    "leave auth.scope out, or set the one of the account's cloud; the double slash of"
    " https://batch.core.windows.net//.default belongs there",
)


def diagnose(account: Account, error: PollError) -> None:
    """Set `cause` and `cure` of an error, from what was answered and what is configured."""
    if isinstance(error, CredentialError):
        sign_in_causes.explain(account.auth.method, error)
    else:
        error.cause, error.cure = _cause_and_cure(account, error)


def _cause_and_cure(account: Account, error: PollError) -> CauseAndCure:
    host = urlsplit(account.endpoint).hostname or ""
    match error:
        case ConnectionFailed():
            return _connection(error.step, host)
        case RequestTimeout():
            return (
                "timeout",
                f"see whether {host} can be reached from here and no firewall swallows"
                " requests; or raise request_timeout",
            )
        case AuthenticationFailed():
            return _authentication(error, account, host)
        case Forbidden():
            return _forbidden(error, account.auth.method)
        case Throttled() | TooManyRequests():
            return (
                "throttled",
                "nothing, where it passes; else lower requests_per_second or make interval longer,"
                " and see who else asks this account",
            )
        case JobGone():
            return "gone", "nothing: the job was deleted"
        case ServiceError():
            return _service(error)
        case TooLarge():
            return (
                "too_large",
                "leave the collector tasks out for a job with so many tasks, or let rules match"
                " fewer jobs",
            )
        case InvalidResponse():
            return "invalid", f"see what answers at {host}: {_ENDPOINT_CURE}"
        case _:
            return "internal", "please report it, with the log at --log.level=debug"


def _connection(step: str, host: str) -> CauseAndCure:
    if step == "credentials":
        return (
            "proxy",
            "the proxy wants credentials: write them into HTTPS_PROXY,"
            " http://USER:PASSWORD@HOST:PORT, percent-encoded",
        )
    if step == "proxy":
        return (
            "proxy",
            f"see that HTTPS_PROXY is the proxy's address and that the proxy lets us go to {host};"
            " where none is needed for it, name the host in NO_PROXY",
        )
    if step == "dns":
        return (
            "dns",
            f"no address is known for {host}: see that account and region are spelled"
            f" right in endpoint ({_ENDPOINT_CURE}), and that this machine resolves names",
        )
    if step == "tls":
        return (
            "tls",
            f"there is no TLS with {host}, or its certificate is not trusted here: see that"
            " endpoint is right; where a proxy opens TLS, name its authority's file in"
            " SSL_CERT_FILE",
        )
    return (
        "connection",
        f"nothing answers at {host}: see that endpoint is right, and that firewall, proxy"
        " (HTTPS_PROXY) and the account's network rules let this machine through",
    )


def _authentication(error: AuthenticationFailed, account: Account, host: str) -> CauseAndCure:
    details = " ".join((error.message, *(f"{key}: {value}" for key, value in error.values)))
    text = details.lower()
    if "clock is" in text or "date header" in text or "date of the request" in text:
        return "clock", "set this machine's clock right, with NTP"
    if account.auth.method == "shared_key":
        named = host.partition(".")[0]
        if host.endswith(BATCH_DOMAINS) and named.lower() != account.name.lower():
            return (
                "account_name",
                f"name is {account.name}, and endpoint is that of {named}: make them agree",
            )
        if "account name" in text:
            return (
                "account_name",
                "set name to the Batch account's own, which is the first part of endpoint",
            )
        if "type of authentication" in text:
            return "key", "this account takes no keys: allow them in its settings, or use a token"
        return "key", "copy one of the account's two keys anew: it may have been renewed"
    if "audience" in text:
        return _SCOPE
    if "tenant" in text or "issuer" in text:
        return "tenant", "sign in to the tenant of the account's subscription: tenant_id, az login"
    return "token", f"see that identity and account are of one tenant and cloud: {host}"


def _forbidden(error: Forbidden, method: str) -> CauseAndCure:
    if error.code == "AccountIsDisabled":
        return "account_disabled", "see the account's state and its subscription's"
    is_network = not error.others_succeed and error.code != "InsufficientAccountPermissions"
    if method == "shared_key" and is_network:
        return "network", "the key is right: see whether the account's network rules let us in"
    if method == "shared_key":
        return (
            "permission",
            "the key is right, and the account may not do this: see its settings, or ask"
            " Microsoft's support with the ids of the request",
        )
    cure = f"give the identity the role {READER_ROLE} on the account (it takes some minutes)"
    if is_network:
        cure += ", and see whether the account's network rules let us in"
    return "role", cure


def _service(error: ServiceError) -> CauseAndCure:
    if isinstance(error, UnsupportedVersion):
        return (
            "api_version",
            f"leave api_version out, which asks for {API_VERSION}; where the service refuses that"
            f" one, set a newer one: the newest known is {NEWEST_API_VERSION}",
        )
    if error.status == 407:
        return _connection("credentials", "")
    if 300 <= error.status < 400 or (error.status in (404, 405) and not error.code):
        return "endpoint", f"no Batch service answers there: {_ENDPOINT_CURE}"
    return "service", "nothing, where it passes; else see the account's health in Azure"
