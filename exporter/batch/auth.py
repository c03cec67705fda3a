"""Signing in to an account: SharedKey signatures, and tokens of Microsoft Entra ID.

SharedKey: learn.microsoft.com, "Authenticate requests to the Azure Batch service".
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import math
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

from azure.core.credentials import AccessTokenInfo
from azure.core.credentials_async import AsyncSupportsTokenInfo
from azure.core.exceptions import AzureError

from exporter import config
from exporter.batch.errors import CredentialError
from exporter.config import secret

log = logging.getLogger(__name__)

FORGET_AT_MOST_EVERY = 60.0
"""Seconds between two requests for a new token after the service refused one."""

REFRESH_BEFORE = 300.0
"""Seconds before the expiry of a token at which it is renewed, unless the token sets a time."""


class Auth:
    """Authentication of requests to one account. Without a subclass it gives no headers."""

    async def headers(self, _url: str, _e_tag: str = "", /) -> dict[str, str]:
        """The headers that authenticate a GET request. CredentialError where there are none.

        `e_tag`: the header If-None-Match of the request.
        """
        return {}

    def forget(self, _: Mapping[str, str], /) -> bool:
        """Note that the service refused these headers. False: there are no others to try."""
        return False

    async def close(self) -> None:
        """Free what is held."""


def string_to_sign(account: str, url: str, date: str, e_tag: str = "") -> str:
    """The text that the SharedKey signature of a GET request covers.

    `url`: as it is sent, percent-encoded. `date`, `e_tag`: the headers ocp-date and If-None-Match.
    """
    path, _, query = url.partition("://")[2].partition("/")[2].partition("?")
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    lines = ["GET"]
    # Of the headers from Content-Encoding to Range, the exporter sends If-None-Match alone.
    lines += [*[""] * 8, e_tag, "", ""]
    lines += [f"ocp-date:{date}", f"/{account}/{path}"]
    lines += [f"{unquote(name)}:{unquote(value)}" for name, _, value in sorted(pairs)]
    return "\n".join(lines)


class SharedKeyAuth(Auth):
    """Signs each request with the account key."""

    def __init__(self, account: str, key: bytes, now: Callable[[], float] = time.time) -> None:
        self._account = account
        self._key = key
        self._now = now

    async def headers(self, url: str, e_tag: str = "", /) -> dict[str, str]:
        """ocp-date and Authorization."""
        date = formatdate(self._now(), usegmt=True)
        text = string_to_sign(self._account, url, date, e_tag)
        digest = hmac.digest(self._key, text.encode(), hashlib.sha256)
        signature = base64.b64encode(digest).decode()
        return {"ocp-date": date, "Authorization": f"SharedKey {self._account}:{signature}"}


class TokenAuth(Auth):
    """Bearer tokens from a credential, renewed before they expire.

    While the token is valid, a failed renewal is only a warning. `make_credential`: returns a new
    credential without cached tokens; ValueError where its secret cannot be read. `timeout`: seconds
    that a renewal may take.
    """

    def __init__(
        self,
        make_credential: Callable[[], AsyncSupportsTokenInfo],
        scope: str,
        timeout: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._timeout = timeout
        self._make_credential = make_credential
        self._credential = make_credential()
        self._has_refused_token = False
        self._scope = scope
        self._now = now
        self._token: AccessTokenInfo | None = None
        self._forgotten_at = -math.inf
        self._lock = asyncio.Lock()

    async def headers(self, _url: str, _e_tag: str = "", /) -> dict[str, str]:
        """Authorization with a token that has not expired."""
        token = self._token
        if token is None or self._is_due(token):
            try:
                # One renewal serves all requests.
                async with asyncio.timeout(self._timeout), self._lock:
                    token = await self._renewed()
            except TimeoutError as error:
                raise CredentialError(f"no token within {self._timeout:g} s") from error
        return {"Authorization": f"Bearer {token.token}"}

    def forget(self, headers: Mapping[str, str], /) -> bool:
        """Renew the token with the next request, at most once a minute."""
        token = self._token
        if token is None or headers.get("Authorization") != f"Bearer {token.token}":
            return True  # it was renewed meanwhile
        if self._now() - self._forgotten_at < FORGET_AT_MOST_EVERY:
            return False
        self._forgotten_at = self._now()
        self._token = None
        self._has_refused_token = True
        return True

    async def close(self) -> None:
        """Close the credential and its connections."""
        await self._credential.close()

    def _is_due(self, token: AccessTokenInfo) -> bool:
        return self._now() >= (token.refresh_on or token.expires_on - REFRESH_BEFORE)

    async def _renewed(self) -> AccessTokenInfo:
        current = self._token
        if current is not None and not self._is_due(current):
            return current
        if self._has_refused_token:
            # A credential caches its token, and would return the refused one.
            old = self._credential
            try:
                self._credential = self._make_credential()
            except ValueError as error:
                raise CredentialError(str(error)) from error
            self._has_refused_token = False
            await old.close()
        try:
            self._token = await self._credential.get_token_info(self._scope)
        except AzureError as error:
            # The first line says what failed. The others repeat how to set up each credential.
            failure = CredentialError(str(error).strip().partition("\n")[0])
            if current is None or self._now() >= current.expires_on:
                raise failure from error
            log.warning("token could not be renewed, the old one is still good: %s", failure)
            return current
        return self._token


def build(account: config.Account) -> Auth:
    """The authentication that an account is configured with.

    ValueError where its secret cannot be read. azure-identity is imported only where it is used,
    because it takes longer to load than everything else.
    """
    auth = account.auth
    if auth.method == "shared_key":
        return SharedKeyAuth(account.name, secret.read_secret(auth))
    authority = account.authority
    return TokenAuth(lambda: _credential(auth, authority), account.scope, account.request_timeout)


def _credential(auth: config.Auth, authority: str) -> AsyncSupportsTokenInfo:
    from azure.identity import aio

    # Unset options are not passed: each credential reads its defaults from the environment.
    cloud: dict[str, Any] = {"authority": authority}
    ids: dict[str, Any] = {"tenant_id": auth.tenant_id, "client_id": auth.client_id}
    ids = {name: value for name, value in ids.items() if value}
    match auth.method:
        case "managed_identity":
            return aio.ManagedIdentityCredential(**ids)
        case "workload_identity":
            return aio.WorkloadIdentityCredential(**ids, **cloud)
        case "client_secret":
            given = secret.read_secret(auth).decode()
            return aio.ClientSecretCredential(**ids, client_secret=given, **cloud)
        case "client_certificate":
            pem = secret.read_certificate(auth).pem
            return aio.CertificateCredential(**ids, certificate_data=pem, **cloud)
        case "azure_cli":
            return aio.AzureCliCredential(**ids)
        case _:
            known = {f"workload_identity_{name}": value for name, value in ids.items()}
            if auth.client_id:
                known["managed_identity_client_id"] = auth.client_id
            return aio.DefaultAzureCredential(**known, **cloud)
