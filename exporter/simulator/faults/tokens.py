"""Faults of authentication that a new token cures, or does not."""

from aiohttp import web

from exporter.simulator.error_answers import authentication_failed
from exporter.simulator.faults.fault import Fault, Stage, fault
from exporter.simulator.operations import Call
from exporter.simulator.server import Interceptor, Proceed

_EXPIRED = "The access token has expired."


async def refuse_token(_request: web.Request, _call: Call, _proceed: Proceed) -> web.StreamResponse:
    """401 as for a token that has expired."""
    raise authentication_failed(_EXPIRED, status=401)


def _refuse_first(_: Stage) -> Interceptor:
    """Refuses what the first request signed in with, as often as it comes, and nothing else."""
    expired: str | None = None

    async def play(request: web.Request, _call: Call, proceed: Proceed) -> web.StreamResponse:
        nonlocal expired
        token = request.headers.get("Authorization", "")
        if expired is None:
            expired = token
        if token == expired:
            raise authentication_failed(_EXPIRED, status=401)
        return await proceed()

    return play


TOKENS: tuple[Fault, ...] = (
    fault("token-expired", "401 whatever token comes", refuse_token),
    Fault("token-expired-once", "401 until a new token (or signature) comes", _refuse_first),
)
