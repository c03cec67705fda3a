"""From an exception of azure-identity to a CredentialError with a code."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Literal

import aiohttp

from exporter.batch.errors import CredentialError

Endpoint = Literal["authority", "identity"]
"""Who was asked for a token: Microsoft Entra ID, or the endpoint of a managed identity."""


class Said:
    """Notes the last answer of an endpoint: its status, and for how long it asks to wait."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.status: int | None = None
        self.retry_after: float | None = None

    def note(self, response: Any) -> None:
        """Called by azure-core with each answer."""
        answer = response.http_response
        self.status = answer.status_code
        wait = str(answer.headers.get("Retry-After", "")).strip()
        self.retry_after = float(wait) if wait.isascii() and wait.isdigit() else None


def as_credential_error(error: Exception, said: Said) -> CredentialError:
    """The error, with the code of what failed and a text of one line."""
    text, trace = _first_line(str(error))
    if said.status is None:
        return _unanswered(error, text, said.endpoint)
    entra = re.search(r"AADSTS\d+", text)
    if said.endpoint == "authority":
        code = _of_authority(said.status) or (entra[0] if entra else "authority_invalid")
    else:
        code = entra[0] if entra else _of_identity(said.status, text)
    return CredentialError(
        text[entra.start() :] if entra else f"HTTP {said.status}: {text}",
        code,
        trace=trace,
        retry_after=said.retry_after,
        is_unavailable=code in ("identity_not_assigned", "identity_unreachable"),
    )


def _first_line(text: str) -> tuple[str, str]:
    """What failed, and the ids for Microsoft's support; the rest repeats how to set up a method."""
    said = text.strip().partition("\nContent:")[0]
    if wrapped := re.fullmatch(r"Microsoft Entra ID error '\([a-z_]+\) (.*)'", said, re.DOTALL):
        said = wrapped[1]
    elif described := re.search(r"""'error_description': (['"])(.*?)\1""", said):
        said = described[2]
    what, ids, trace = said.partition("Trace ID:")
    return what.strip().partition("\n")[0] or said[:200], " ".join((ids + trace).split())


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, the deepest last."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        inner = getattr(each, "inner_exception", None)
        each = each.__cause__ or (inner if isinstance(inner, BaseException) else each.__context__)


def _unanswered(error: Exception, text: str, endpoint: Endpoint) -> CredentialError:
    """The error of a request that was not answered, or not sent."""
    causes = list(_chain(error))
    step = next((found for each in causes if (found := _step(each))), None)
    if step == "file":
        missing = next(each for each in causes if isinstance(each, OSError) and each.filename)
        return CredentialError(f"{missing.filename}: {missing.strerror}", "file")
    if step is None:
        return CredentialError(f"{type(error).__name__}: {text}", "unknown")
    why = str(causes[-1]) or type(causes[-1]).__name__
    if endpoint == "identity":
        return CredentialError(
            f"no answer of the managed identity endpoint: {why}",
            "identity_unreachable",
            is_unavailable=True,
        )
    return CredentialError(f"no answer of the authority: {why}", f"authority_{step}")


def _step(error: BaseException) -> str | None:
    """The step at which a request failed."""
    match error:
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return "proxy"
        case aiohttp.ClientConnectorDNSError() | socket.gaierror():
            return "dns"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "tls"
        case aiohttp.ClientError() | ConnectionError():
            return "connection"
        case TimeoutError():
            return "timeout"
        case OSError() if error.filename is not None:
            return "file"
        case OSError():
            return "connection"
    return None


def _of_authority(status: int) -> str:
    """The code where the status says it all, or ""."""
    if status == 429:
        return "authority_throttled"
    return "authority_unavailable" if status >= 500 else ""


def _of_identity(status: int, text: str) -> str:
    if status == 400:
        return "identity_not_assigned"
    if status == 403 and "unreachable" in text:  # Docker Desktop answers for IMDS
        return "identity_unreachable"
    if status in (401, 403):
        return "identity_refused"
    if status == 429:
        return "identity_throttled"
    if status in (404, 410):
        return "identity_not_found"
    return "identity_unavailable" if status >= 500 else "identity_invalid"
