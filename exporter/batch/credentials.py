"""Signing in once, by the method of the configuration, through azure-identity.

Each attempt is made anew: it reads secrets, certificates, token files and trusted authorities as
they are now, and leaves nothing behind. `exporter.batch.token_renewal` decides when to try.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import aiohttp
from azure.core.credentials import AccessTokenInfo
from azure.core.credentials_async import AsyncSupportsTokenInfo

from exporter import config
from exporter.batch import azure_cli
from exporter.batch.credential_errors import Endpoint, Said, as_credential_error
from exporter.batch.errors import CredentialError
from exporter.batch.resolver import NameResolver
from exporter.config import files, redaction, secret
from exporter.config.environment import is_workload_identity_pod

TIMEOUT = 10.0
"""Seconds for an attempt."""

LONG_TIMEOUT = 40.0
"""Seconds for an attempt of methods that start the Azure CLI, which may take long."""

PROBE_TIMEOUT = 1.0
"""Seconds in which a managed identity endpoint is to accept a connection, where `default` looks
whether there is one."""

Environ = Mapping[str, str]


@dataclass
class SignIn:
    """How to sign in to an account; `auth.method` is not shared_key.

    `chosen`: with method `default`, the method that gave a token. No other one is used then:
    another identity may have other rights.
    """

    auth: config.Auth
    scope: str
    authority: str
    chosen: str = field(default="", init=False)

    @property
    def timeout(self) -> float:
        """Seconds for an attempt."""
        return LONG_TIMEOUT if self.auth.method in ("default", "azure_cli") else TIMEOUT

    @property
    def identity(self) -> str:
        """Who signs in, for people."""
        return " ".join(filter(None, (self.auth.method, self.auth.client_id)))

    @property
    def timeout_code(self) -> str:
        """The code of an attempt that takes longer, as CredentialError has it."""
        by_method = {
            "default": "default_timeout",
            "azure_cli": "az_timeout",
            "managed_identity": "identity_timeout",
        }
        return by_method.get(self.auth.method, "authority_timeout")

    async def get_token(self) -> AccessTokenInfo:
        """A new token. CredentialError where there is none."""
        if self.auth.method == "default":
            return await self._first_of_all()
        return await self._by(self.auth.method)

    async def _by(self, method: str) -> AccessTokenInfo:
        issued = await _METHODS[method](self)
        # A header takes nothing else; azure-identity passes on what it got.
        if not isinstance(issued.token, str) or not re.fullmatch(r"[!-~]+", issued.token):
            code = {"managed_identity": "identity_invalid", "azure_cli": "az_failed"}
            text = "the answer holds no usable token, it is empty or has odd characters"
            raise CredentialError(text, code.get(method, "authority_invalid"))
        redaction.hide(issued.token)
        return issued

    async def _first_of_all(self) -> AccessTokenInfo:
        if self.chosen:
            return await self._by(self.chosen)
        said = []
        answered: CredentialError | None = None
        for method in _wanted(os.environ):
            try:
                token = await self._by(method)
            except CredentialError as error:
                said.append(f"{method}: {error}")
                if error.code not in _NOT_THERE:
                    answered = answered or error
                if not error.is_unavailable:
                    break
            else:
                self.chosen = method
                return token
        text = f"tried {'; '.join(said)}"
        if answered is None:
            raise CredentialError(text, "default_none")
        raise CredentialError(
            text, answered.code, trace=answered.trace, retry_after=answered.retry_after
        )


_NOT_THERE = ("not_set", "identity_unreachable", "az_not_found")
"""Codes of a way to sign in of which this machine has nothing."""

_PRODUCTION = ("environment", "workload_identity", "managed_identity")
_BY_NAME = {
    "": (*_PRODUCTION, "azure_cli"),
    "prod": _PRODUCTION,
    "dev": ("azure_cli",),
    "environmentcredential": ("environment",),
    "workloadidentitycredential": ("workload_identity",),
    "managedidentitycredential": ("managed_identity",),
    "azureclicredential": ("azure_cli",),
}


def _wanted(environ: Environ) -> tuple[str, ...]:
    """The methods that `default` tries, in turn."""
    return _BY_NAME.get(environ.get("AZURE_TOKEN_CREDENTIALS", "").strip().lower(), _BY_NAME[""])


async def _environment(sign_in: SignIn) -> AccessTokenInfo:
    """The application that the environment names, as azure-identity's EnvironmentCredential."""
    aio = await _library()
    names = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH")
    ids = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID")
    if not all(name in os.environ for name in ids) or not any(map(os.environ.get, names)):
        text = f"not set: {' and '.join(ids)} with {' or '.join(names)}"
        raise CredentialError(text, "not_set", is_unavailable=True)
    for name in ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PASSWORD"):
        redaction.hide(os.environ.get(name, ""))

    def make(options: Options) -> Any:
        return aio.EnvironmentCredential(authority=sign_in.authority, **options)

    return await _token(sign_in, "authority", make)


async def _client_secret(sign_in: SignIn) -> AccessTokenInfo:
    aio = await _library()
    given = (await _read(lambda: secret.read_secret(sign_in.auth))).decode()
    redaction.hide(given)

    def make(options: Options) -> Any:
        ids = _ids(sign_in.auth)
        return aio.ClientSecretCredential(
            **ids, client_secret=given, authority=sign_in.authority, **options
        )

    return await _token(sign_in, "authority", make)


async def _client_certificate(sign_in: SignIn) -> AccessTokenInfo:
    aio = await _library()
    found = await _read(lambda: secret.read_certificate(sign_in.auth))

    def make(options: Options) -> Any:
        ids = _ids(sign_in.auth)
        return aio.CertificateCredential(
            **ids, certificate_data=found.pem, authority=sign_in.authority, **options
        )

    try:
        return await _token(sign_in, "authority", make)
    except CredentialError as error:
        # Microsoft Entra ID says "not registered" of one that has expired, too.
        wrong = found.not_valid(dt.datetime.now(dt.UTC))
        if error.code not in ("AADSTS700027", "AADSTS700024"):
            raise
        file, until = sign_in.auth.certificate_file, f"{found.not_after:%Y-%m-%d}"
        which = f"the certificate in {file}, {found.thumbprint}, {wrong or f'holds until {until}'}"
        code = "certificate_expired" if wrong else error.code
        raise CredentialError(f"{error}; {which}", code, trace=error.trace) from error


async def _workload_identity(sign_in: SignIn) -> AccessTokenInfo:
    aio = await _library()
    ids = _ids(sign_in.auth)
    lacking = [
        name
        for name, key in (
            ("AZURE_TENANT_ID", "tenant_id"),
            ("AZURE_CLIENT_ID", "client_id"),
            ("AZURE_FEDERATED_TOKEN_FILE", ""),
        )
        if key not in ids and not os.environ.get(name)
    ]
    if lacking:
        text = f"not set: {', '.join(lacking)}"
        raise CredentialError(text, "not_set", is_unavailable=True)
    await _see_federated_token()

    def make(options: Options) -> Any:
        return aio.WorkloadIdentityCredential(**ids, authority=sign_in.authority, **options)

    return await _token(sign_in, "authority", make)


async def _managed_identity(sign_in: SignIn) -> AccessTokenInfo:
    aio = await _library()
    client_id = sign_in.auth.client_id
    if sign_in.auth.method == "default":
        client_id = client_id or os.environ.get("AZURE_CLIENT_ID")
    given = {"client_id": client_id} if client_id else {}
    is_pod = is_workload_identity_pod(os.environ)
    if is_pod:
        await _see_federated_token()
    for name in ("IDENTITY_HEADER", "MSI_SECRET"):
        redaction.hide(os.environ.get(name, ""))

    def make(options: Options) -> Any:
        if sign_in.auth.method == "default":
            options = {**options, "connection_timeout": PROBE_TIMEOUT}
        return aio.ManagedIdentityCredential(**given, **options)

    # In a pod with a workload identity, azure-identity uses that one.
    return await _token(sign_in, "authority" if is_pod else "identity", make)


async def _azure_cli(sign_in: SignIn) -> AccessTokenInfo:
    return await azure_cli.get_token(sign_in.scope, sign_in.auth.tenant_id)


_METHODS: Mapping[str, Callable[[SignIn], Awaitable[AccessTokenInfo]]] = {
    "environment": _environment,
    "client_secret": _client_secret,
    "client_certificate": _client_certificate,
    "workload_identity": _workload_identity,
    "managed_identity": _managed_identity,
    "azure_cli": _azure_cli,
}

Options = Mapping[str, Any]
"""Keyword arguments of every credential of azure-identity."""


def _ids(auth: config.Auth) -> dict[str, str]:
    # Unset ones are not passed: the credential reads the environment.
    ids = {"tenant_id": auth.tenant_id, "client_id": auth.client_id}
    return {name: value for name, value in ids.items() if value}


async def _library() -> Any:
    """azure.identity.aio. It takes half a second to load, which must not hold the event loop."""
    return await asyncio.to_thread(import_module, "azure.identity.aio")


async def _read(read: Callable[[], Any]) -> Any:
    """What a function reads from files, which may hang."""
    try:
        return await asyncio.to_thread(read)
    except ValueError as error:
        is_missing = isinstance(error.__cause__, OSError)
        raise CredentialError(str(error), "file" if is_missing else "secret_invalid") from error


async def _see_federated_token() -> None:
    """See that azure-identity, which reads the file in the event loop, will not wait there."""
    file = Path(os.environ["AZURE_FEDERATED_TOKEN_FILE"])
    try:
        redaction.hide((await asyncio.to_thread(files.read, file)).decode().strip())
    except OSError as error:
        raise CredentialError(f"{file}: {error.strerror}", "file") from error
    except UnicodeDecodeError:
        raise CredentialError(f"{file}: not text", "file") from None


async def _token(
    sign_in: SignIn, endpoint: Endpoint, make: Callable[[Options], Any]
) -> AccessTokenInfo:
    """The token of a credential that `make` returns. CredentialError says what failed."""
    said = Said(endpoint)
    async with _transport(uses_proxy=endpoint == "authority") as transport:
        try:
            credential: AsyncSupportsTokenInfo = make(
                {
                    "transport": transport,
                    "retry_total": 0,  # a failed attempt is repeated later, by our own count
                    "retry_status": 0,
                    "raw_response_hook": said.note,
                }
            )
            return await credential.get_token_info(sign_in.scope)
        except Exception as error:
            raise as_credential_error(error, said) from error


@asynccontextmanager
async def _transport(*, uses_proxy: bool) -> AsyncIterator[Any]:
    """Connections to an issuer of tokens, closed at the end.

    `uses_proxy`: as HTTPS_PROXY says. An endpoint of this machine is never behind a proxy.
    """
    from azure.core.pipeline.transport import AioHttpTransport

    # Reads the trusted authorities, which may have changed.
    tls = await asyncio.to_thread(ssl.create_default_context)
    connector = aiohttp.TCPConnector(ssl=tls, resolver=NameResolver(), use_dns_cache=False)
    session = aiohttp.ClientSession(
        connector=connector,
        trust_env=uses_proxy,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # azure-core does it
    )
    async with session:
        yield AioHttpTransport(session=session, session_owner=False)
