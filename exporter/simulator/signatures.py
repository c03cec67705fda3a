"""Who may read the account: the SharedKey signature, and bearer tokens made by `identity.py`."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from urllib.parse import unquote_plus

from exporter.simulator.error_answers import authentication_failed

BATCH_AUDIENCE = "https://batch.core.windows.net/"

_SIGNED_HEADERS = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)
_TOLERANCE = timedelta(minutes=15)


@lru_cache(maxsize=256)  # requests come many to a second
def _date(text: str) -> datetime:
    return parsedate_to_datetime(text)


@dataclass(frozen=True, slots=True)
class Account:
    """A Batch account's name and its key in base64."""

    name: str
    key: str


def make_account(seed: int, name: str = "simulated") -> Account:
    """An account whose key follows from the seed."""
    key = hashlib.sha512(f"azure-batch-simulator {seed}".encode()).digest()
    return Account(name, base64.b64encode(key).decode())


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What a signature covers: method, path and query as they were sent, headers in lower case."""

    method: str
    raw_path: str
    raw_query: str
    headers: Mapping[str, str]


def string_to_sign(account_name: str, request: SignedRequest, *, lower_names: bool = True) -> str:
    """The text that a SharedKey signature signs.

    The documentation lower-cases the names of query parameters; Python's SDKs sign them as they
    are, and `lower_names=False` gives theirs.
    """
    headers = request.headers
    values = {name: headers.get(name, "") for name in _SIGNED_HEADERS}
    if "ocp-date" in headers:
        values["date"] = ""
    if values["content-length"] == "0" and request.method == "GET":
        values["content-length"] = ""
    lines = [request.method, *(values[name] for name in _SIGNED_HEADERS)]
    lines += [f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("ocp-")]
    lines.append(f"/{account_name}{request.raw_path}")
    parameters: dict[str, str] = {}
    for part in request.raw_query.split("&"):
        name, _, value = part.partition("=")
        if value:
            name = unquote_plus(name)
            parameters.setdefault(name.lower() if lower_names else name, unquote_plus(value))
    lines += [f"{name}:{parameters[name]}" for name in sorted(parameters)]
    return "\n".join(lines)


def signature(account: Account, text: str) -> str:
    """HMAC-SHA256 of the text with the account's key, in base64."""
    digest = hmac.digest(base64.b64decode(account.key), text.encode(), "sha256")
    return base64.b64encode(digest).decode()


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A bearer token: for which audience, and until when (aware, real time)."""

    audience: str
    expires: datetime


class TokenRegistry:
    """The tokens that the simulated identity service has issued."""

    def __init__(self, utc_now: Callable[[], datetime]) -> None:
        """`utc_now` gives real time, aware."""
        self._utc_now = utc_now
        self._issued: dict[str, IssuedToken] = {}

    def issue(self, audience: str, lifetime: timedelta) -> str:
        """A new opaque token, good for this audience as long as this."""
        token = secrets.token_urlsafe(32)
        self._issued[token] = IssuedToken(audience, self._utc_now() + lifetime)
        return token

    def verify(self, token: str) -> None:
        """Raise BatchError unless the token is known, not expired, and for Batch exactly."""
        issued = self._issued.get(token)
        if issued is None:
            raise authentication_failed("The access token is not valid.", status=401)
        if issued.expires <= self._utc_now():
            raise authentication_failed("The access token has expired.", status=401)
        if issued.audience != BATCH_AUDIENCE:
            raise authentication_failed(
                "The access token has been obtained from wrong audience or resource "
                f"'{issued.audience}'. It should exactly match (including forward slash) with one "
                f"of the allowed audiences '{BATCH_AUDIENCE}'."
            )


class Authenticator:
    """Decides on the Authorization header of each request."""

    def __init__(
        self, account: Account, tokens: TokenRegistry, times: Callable[[], Iterable[datetime]]
    ) -> None:
        """`times`: real and simulated time, aware; a client may date its signature by either."""
        self._account = account
        self._tokens = tokens
        self._times = times

    def check(self, request: SignedRequest) -> None:
        """Raise BatchError unless the request may be answered."""
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            self._tokens.verify(credentials.strip())
        elif scheme.lower() == "sharedkey":
            self._check_shared_key(request, credentials.strip())
        else:
            raise authentication_failed(
                "The specified authentication scheme is missing or not supported."
            )

    def _check_shared_key(self, request: SignedRequest, credentials: str) -> None:
        name, _, given = credentials.partition(":")
        if name != self._account.name:
            raise authentication_failed("The account name in the Authorization header is wrong.")
        self._check_date(request)
        for lower_names in (True, False):
            text = string_to_sign(name, request, lower_names=lower_names)
            if hmac.compare_digest(signature(self._account, text).encode(), given.encode()):
                return
        raise authentication_failed(
            "The MAC signature found in the HTTP request is not the same as any computed signature."
        )

    def _check_date(self, request: SignedRequest) -> None:
        stated = request.headers.get("ocp-date") or request.headers.get("date", "")
        try:
            sent = _date(stated)
            late = all(abs(now - sent) > _TOLERANCE for now in self._times())
        except (TypeError, ValueError):
            raise authentication_failed(
                "The date header of the request is missing or invalid."
            ) from None
        if late:
            raise authentication_failed(
                "The date of the request is more than 15 minutes away from the server's."
            )
