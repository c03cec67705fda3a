"""What is probably wrong with an account, in a fixed word, and what to do about it.

The service says why it refused in words that are not made for those who run an exporter; what
those have to mend is the endpoint, the name, a secret, a role, a clock.

Codes of Microsoft Entra ID: learn.microsoft.com, "Microsoft Entra authentication and authorization
error codes".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from exporter import config
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
    TooManyRequests,
)

CAUSES = (
    *("dns", "tls", "connection", "timeout", "endpoint", "api_version"),
    *("account_name", "key", "clock"),
    *("tenant", "client_id", "client_secret", "scope", "credential", "token"),
    *("role", "network", "account_disabled"),
    *("throttled", "service", "invalid", "gone", "internal"),
)
"""Every cause there is."""

READER_ROLE = "Azure Batch Account Reader"
"""The least role that Azure has ready-made for all that the exporter reads."""

BATCH_DOMAINS = (".batch.azure.com", ".batch.chinacloudapi.cn", ".batch.usgovcloudapi.net")

_ENDPOINT_CURE = (
    "copy the account's URL from its overview in the portal,"
    " https://{account}.{region}.batch.azure.com"
)


class Diagnosis(NamedTuple):
    """`cause`: one of `CAUSES`. `cure`: a phrase that says what to do."""

    cause: str
    cure: str


@dataclass(frozen=True)
class ConfiguredAccount:
    """What the configuration says of an account, as far as it bears on what can be wrong."""

    name: str
    host: str
    method: str
    scope: str

    @classmethod
    def of(cls, account: config.Account) -> ConfiguredAccount:
        """An account of the configuration."""
        host = urlsplit(account.endpoint).hostname or ""
        return cls(account.name, host, account.auth.method, account.auth.scope)

    @property
    def name_in_host(self) -> str | None:
        """The account's name as its URL has it; None where that is no URL of the service."""
        return self.host.partition(".")[0] if self.host.endswith(BATCH_DOMAINS) else None


def diagnose(error: PollError, account: ConfiguredAccount) -> Diagnosis:
    """What is probably wrong, from what was answered and what is configured."""
    match error:
        case ConnectionFailed():
            return _connection(error, account)
        case RequestTimeout():
            return Diagnosis(
                "timeout",
                f"see whether {account.host} can be reached from here and no firewall swallows"
                " requests; or raise request_timeout",
            )
        case CredentialError():
            return _credential(str(error), account)
        case AuthenticationFailed():
            return _authentication(error, account)
        case Forbidden():
            return _forbidden(error, account)
        case Throttled() | TooManyRequests():
            return Diagnosis(
                "throttled",
                "nothing, where it passes; else lower requests_per_second or make interval longer,"
                " and see who else asks this account",
            )
        case JobGone():
            return Diagnosis("gone", "nothing: the job was deleted")
        case ServiceError():
            return _service(error)
        case InvalidResponse():
            return Diagnosis("invalid", f"see what answers at {account.host}: {_ENDPOINT_CURE}")
        case _:
            return Diagnosis("internal", "please report it, with the log at --log.level=debug")


def _connection(error: ConnectionFailed, account: ConfiguredAccount) -> Diagnosis:
    if error.step == "dns":
        return Diagnosis(
            "dns",
            f"no address is known for {account.host}: see that account and region are spelled"
            f" right in endpoint ({_ENDPOINT_CURE}), and that this machine resolves names",
        )
    if error.step == "tls":
        return Diagnosis(
            "tls",
            f"there is no TLS with {account.host}, or its certificate is not trusted here: see that"
            " endpoint is right; where a proxy opens TLS, name its authority's file in"
            " SSL_CERT_FILE",
        )
    return Diagnosis(
        "connection",
        f"nothing answers at {account.host}: see that endpoint is right, and that firewall, proxy"
        " (HTTPS_PROXY) and the account's network rules let this machine through",
    )


_ENTRA: Mapping[str, Diagnosis] = {
    **dict.fromkeys(
        ("AADSTS90002", "AADSTS900023", "AADSTS900021"),
        Diagnosis("tenant", "set tenant_id to the directory in which the application is"),
    ),
    **dict.fromkeys(
        ("AADSTS700016", "AADSTS7000112"),
        Diagnosis(
            "client_id",
            "set client_id to the application (client) id of an application of that tenant that"
            " is not disabled",
        ),
    ),
    "AADSTS7000215": Diagnosis(
        "client_secret", "give the secret's value: its id, shown beside it, is something else"
    ),
    "AADSTS7000222": Diagnosis("client_secret", "the secret has expired: make a new one"),
    "AADSTS700027": Diagnosis(
        "client_secret", "upload the certificate to the application, or give the one that is there"
    ),
    **dict.fromkeys(
        ("AADSTS500011", "AADSTS70011", "AADSTS1002012"),
        Diagnosis(
            "scope",
            "leave auth.scope out, or set the one of the account's cloud; the double slash of"
            " https://batch.core.windows.net//.default belongs there",
        ),
    ),
    "AADSTS700024": Diagnosis(
        "clock", "set this machine's clock right: the assertion is not valid at this time"
    ),
}

_METHODS: Mapping[str, str] = {
    "default": "see that this machine has an identity; or set auth.method to the way that is"
    " meant, and the error will say more than this one of all of them",
    "managed_identity": "give this machine a managed identity; where it is a user-assigned one,"
    " set client_id to its client id",
    "workload_identity": "see that the pod has the label azure.workload.identity/use and its"
    " service account the annotation azure.workload.identity/client-id",
    "azure_cli": "run az login as the user that runs the exporter",
}


def _credential(text: str, account: ConfiguredAccount) -> Diagnosis:
    code = re.search(r"AADSTS\d+", text)
    if code and code[0] in _ENTRA:
        return _ENTRA[code[0]]
    # azure-identity itself looks for the tenant before it asks it.
    if re.search(r"\btenant\b.*(not found|invalid)|invalid tenant", text, re.IGNORECASE):
        return _ENTRA["AADSTS90002"]
    cure = _METHODS.get(
        account.method, "see that tenant_id, client_id and the secret belong together"
    )
    return Diagnosis("credential", cure)


def _authentication(error: AuthenticationFailed, account: ConfiguredAccount) -> Diagnosis:
    details = " ".join((error.message, *(f"{key}: {value}" for key, value in error.values)))
    text = details.lower()
    if "clock is" in text or "date header" in text or "date of the request" in text:
        return Diagnosis("clock", "set this machine's clock right, with NTP")
    if account.method == "shared_key":
        named = account.name_in_host
        if named is not None and named.lower() != account.name.lower():
            return Diagnosis(
                "account_name",
                f"name is {account.name}, and endpoint is that of {named}: make them agree",
            )
        if "account name" in text:
            return Diagnosis(
                "account_name",
                "set name to the Batch account's own, which is the first part of endpoint",
            )
        if "type of authentication" in text:
            return Diagnosis(
                "key", "this account takes no keys: allow them in its settings, or use a token"
            )
        return Diagnosis("key", "copy one of the account's two keys anew: it may have been renewed")
    if "audience" in text:
        return _ENTRA["AADSTS500011"]
    if "tenant" in text or "issuer" in text:
        return Diagnosis(
            "tenant", "sign in to the tenant of the account's subscription: tenant_id, az login"
        )
    return Diagnosis(
        "token", f"see that identity and account are of one tenant and cloud: {account.host}"
    )


def _forbidden(error: Forbidden, account: ConfiguredAccount) -> Diagnosis:
    if error.code == "AccountIsDisabled":
        return Diagnosis("account_disabled", "see the account's state and its subscription's")
    if account.method == "shared_key":
        return Diagnosis(
            "network", "the key is right: see whether the account's network rules let us in"
        )
    return Diagnosis(
        "role",
        f"give the identity the role {READER_ROLE} on the account (it takes some minutes), and see"
        " whether the account's network rules let us in",
    )


def _service(error: ServiceError) -> Diagnosis:
    if error.status == 400 and _is_about_version(error):
        return Diagnosis("api_version", "leave api_version out, or set one that the service has")
    if 300 <= error.status < 400 or (error.status in (404, 405) and not error.code):
        return Diagnosis("endpoint", f"no Batch service answers there: {_ENDPOINT_CURE}")
    return Diagnosis("service", "nothing, where it passes; else see the account's health in Azure")


def _is_about_version(error: ServiceError) -> bool:
    named = ("QueryParameterName", "api-version") in error.values
    return named or error.code == "UnsupportedRequestVersion"
