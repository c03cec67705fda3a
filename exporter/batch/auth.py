"""Signing in to an account: SharedKey signatures, and tokens of Microsoft Entra ID.

SharedKey: learn.microsoft.com, "Authenticate requests to the Azure Batch service".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from functools import partial
from urllib.parse import unquote

from exporter import config
from exporter.batch.credentials import SignIn
from exporter.batch.errors import CredentialError
from exporter.batch.token_renewal import Tokens, Trouble
from exporter.config import redaction, secret


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

    @property
    def failure(self) -> CredentialError | None:
        """Why `forget` found no others to try; None where that is not known."""
        return None

    @property
    def trouble(self) -> Trouble | None:
        """Why what `headers` gives cannot be renewed, although it is still good."""
        return None

    def inherit(self, _: Auth, /) -> None:
        """Use what the account's authentication before a reload still has that is good."""

    def on_recovery(self, tell: Callable[[], None], /) -> None:
        """Call `tell` each time that there are headers after there were none."""

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
    """Signs each request with the account key.

    `read_key`: reads it, now and again after the service refused it; ValueError where it cannot.
    """

    def __init__(
        self, account: str, read_key: Callable[[], bytes], now: Callable[[], float] = time.time
    ) -> None:
        self._account = account
        self._read_key = read_key
        self._key = self._read()
        self._now = now

    def _read(self) -> bytes:
        key = self._read_key()
        redaction.hide(base64.b64encode(key).decode())
        return key

    async def headers(self, url: str, e_tag: str = "", /) -> dict[str, str]:
        """ocp-date and Authorization."""
        date = formatdate(self._now(), usegmt=True)
        text = string_to_sign(self._account, url, date, e_tag)
        digest = hmac.digest(self._key, text.encode(), hashlib.sha256)
        signature = base64.b64encode(digest).decode()
        return {"ocp-date": date, "Authorization": f"SharedKey {self._account}:{signature}"}

    def forget(self, _: Mapping[str, str], /) -> bool:
        """Read the key again. True: it is another one than before."""
        try:
            key = self._read()
        except ValueError:
            return False
        changed, self._key = key != self._key, key
        return changed


class TokenAuth(Auth):
    """Bearer tokens, shared by the accounts with the same sign-in.

    `identity`: equal for those whose tokens are of the same identity, although its secret may have
    changed. `release`: called at the end.
    """

    def __init__(
        self, tokens: Tokens, identity: object, release: Callable[[], Awaitable[None]]
    ) -> None:
        self.tokens = tokens
        self._identity = identity
        self._release = release
        self._tell: Callable[[], None] | None = None

    async def headers(self, _url: str, _e_tag: str = "", /) -> dict[str, str]:
        """Authorization with a token that has not expired."""
        return {"Authorization": f"Bearer {await self.tokens.get()}"}

    def forget(self, headers: Mapping[str, str], /) -> bool:
        """Get another token with the next request, at most once a minute."""
        return self.tokens.refuse(headers.get("Authorization", "").removeprefix("Bearer "))

    @property
    def failure(self) -> CredentialError | None:
        """Why there is no other token than one that the service refused."""
        return self.tokens.failure

    @property
    def trouble(self) -> Trouble | None:
        """Why a token that is still good cannot be renewed."""
        return self.tokens.trouble

    def inherit(self, before: Auth, /) -> None:
        """Use the token of the same identity until there is a new one."""
        if isinstance(before, TokenAuth) and before._identity == self._identity:  # noqa: SLF001
            self.tokens.inherit(before.tokens)

    def on_recovery(self, tell: Callable[[], None], /) -> None:
        """Call `tell` each time that a token comes after there was none."""
        self._tell = tell
        self.tokens.on_recovery.append(tell)

    async def close(self) -> None:
        """Stop renewing, unless another account uses the tokens."""
        if self._tell is not None:
            self.tokens.on_recovery.remove(self._tell)
        await self._release()


class SignIns:
    """Makes the authentication of accounts. Those with the same sign-in share their tokens.

    `explain`: sets cause and cure of a failed sign-in, by the method.
    """

    def __init__(self, explain: Callable[[str, CredentialError], None] = lambda *_: None) -> None:
        self._explain = explain
        self._tokens: dict[object, Tokens] = {}
        self._users: Counter[object] = Counter()

    def auth(self, account: config.Account) -> Auth:
        """The authentication that an account is configured with.

        ValueError where its secret cannot be read.
        """
        auth = account.auth
        if auth.method == "shared_key":
            return SharedKeyAuth(account.name, lambda: secret.read_secret(auth))
        key = (auth, account.scope, account.authority, secret.digest(auth))
        tokens = self._tokens.get(key)
        if tokens is None:
            sign_in = SignIn(auth, account.scope, account.authority)
            explain = partial(self._explain, auth.method)
            tokens = Tokens(
                *(sign_in.get_token, sign_in.timeout, sign_in.timeout_code, explain),
                identity=sign_in.identity,
            )
            self._tokens[key] = tokens
        self._users[key] += 1
        identity = (auth.method, auth.tenant_id, auth.client_id, account.scope, account.authority)
        return TokenAuth(tokens, identity, partial(self._release, key))

    async def _release(self, key: object) -> None:
        self._users[key] -= 1
        if self._users[key] == 0:
            del self._users[key]
            await self._tokens.pop(key).close()
