"""Failures of the identity endpoints set over HTTP, on their own port and without credentials."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from aiohttp import web

from exporter.simulator.identity_failures import FAILURES

if TYPE_CHECKING:
    from exporter.simulator.identity import Identity

IDENTITY_PATH = "/simulator/identity"

_EXAMPLE = '{"failure": "secret-expired"}'
_TYPES: dict[str, tuple[type, str]] = {
    "failure": (str, "a text"),
    "endpoint": (str, "a text such as entra"),
    "after": (int, "a whole number, 0 or more"),
    "lifetime": (int, "a number of seconds, 1 to 86400"),
}
_LONGEST = 86_400  # seconds


def identity_routes(identity: Identity) -> Sequence[web.RouteDef]:
    """Everything below /simulator on the port of the endpoints."""

    async def handle(request: web.Request) -> web.Response:
        if request.path != IDENTITY_PATH:
            return _refusal(404, f"there is nothing at {request.path}: use {IDENTITY_PATH}")
        if request.method == "PUT":
            try:
                _set(identity, await request.read())
            except ValueError as error:
                return _refusal(400, str(error))
        elif request.method == "DELETE":
            identity.failures.clear()
        elif request.method != "GET":
            return _refusal(405, f"{request.method} is not possible: use GET, PUT or DELETE")
        else:
            return _json({**_state(identity), "failures": _CATALOGUE})
        return _json(_state(identity))

    return [web.route("*", "/simulator{rest:(/.*)?}", handle)]


_CATALOGUE = {
    failure.name: {"summary": failure.summary, "endpoints": list(failure.plays)}
    for failure in FAILURES.values()
}


def _state(identity: Identity) -> dict[str, Any]:
    active = identity.failures.active
    return {
        "active": None if active is None else asdict(active),
        "lifetime": int(identity.lifetime.total_seconds()),
        "requests": identity.requests,
        "issued": identity.issued,
        "played": identity.failures.played,
    }


def _set(identity: Identity, body: bytes) -> None:
    """Do what a body says; ValueError names what is wrong, and the cure."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON ({error}): write {_EXAMPLE}") from error
    if not isinstance(content, dict) or not content.keys() & {"failure", "lifetime"}:
        raise ValueError(f"the body has no failure: write {_EXAMPLE}")
    for name, value in content.items():
        if name not in _TYPES:
            raise ValueError(f"{name} is unknown: use {', '.join(_TYPES)}")
        type_, cure = _TYPES[name]
        if not isinstance(value, type_) or isinstance(value, bool):
            raise ValueError(f"{name} {json.dumps(value)}: write {cure}")
    lifetime = content.pop("lifetime", None)
    if lifetime is not None and not 1 <= lifetime <= _LONGEST:
        raise ValueError(f"lifetime {lifetime}: write {_TYPES['lifetime'][1]}")
    if content:
        if "failure" not in content:
            raise ValueError(f"{next(iter(content))} goes with a failure: write {_EXAMPLE}")
        identity.failures.set(**content)
    if lifetime is not None:
        identity.lifetime = timedelta(seconds=lifetime)


def _refusal(status: int, error: str) -> web.Response:
    return _json({"error": error}, status)


def _json(content: object, status: int = 200) -> web.Response:
    text = json.dumps(content, indent=1) + "\n"
    return web.Response(status=status, text=text, content_type="application/json")
