"""Faults that last: what an account looks like to those who watch it on a bad day."""

from collections.abc import Mapping
from types import MappingProxyType

from aiohttp import web

from exporter.simulator.error_answers import authentication_failed
from exporter.simulator.faults.catalogue import CATALOGUE
from exporter.simulator.faults.connections import reset_at_once
from exporter.simulator.faults.fault import Fault, Stage
from exporter.simulator.faults.statuses import forbidden, server_busy, too_many_requests
from exporter.simulator.faults.tokens import refuse_token
from exporter.simulator.operations import Call
from exporter.simulator.server import Interceptor, Proceed

WAVE = 60.0
"""Seconds that a wave of throttling lasts, and from its end to the next one."""

THROTTLED_SHARE = 0.5
GARBAGE_SHARE = 0.3


def _throttled(stage: Stage) -> Interceptor:
    began = stage.now()

    async def play(_request: web.Request, _call: Call, proceed: Proceed) -> web.StreamResponse:
        in_wave = (stage.now() - began) % (2 * WAVE) < WAVE
        if in_wave and stage.random.random() < THROTTLED_SHARE:
            raise too_many_requests()
        return await proceed()

    return play


def _outage(stage: Stage) -> Interceptor:
    async def play(request: web.Request, call: Call, proceed: Proceed) -> web.StreamResponse:
        if stage.random.random() < 0.5:
            raise server_busy()
        return await reset_at_once(request, call, proceed)

    return play


def _auth_expired(_: Stage) -> Interceptor:
    async def play(request: web.Request, call: Call, proceed: Proceed) -> web.StreamResponse:
        if request.headers.get("Authorization", "").lower().startswith("bearer "):
            return await refuse_token(request, call, proceed)
        raise authentication_failed("The signature is not valid: the key was changed.")

    return play


def _no_access(_: Stage) -> Interceptor:
    async def play(*_: object) -> web.StreamResponse:
        raise forbidden()

    return play


def _garbage(stage: Stage) -> Interceptor:
    async def play(request: web.Request, call: Call, proceed: Proceed) -> web.StreamResponse:
        possible = [fault for fault in CATALOGUE.values() if call.operation in fault.operations]
        fault = stage.random.choice(possible)
        stage.played[fault.name] += 1
        return await fault.start(stage)(request, call, proceed)

    return play


FAULT_SCENARIOS: Mapping[str, Fault] = MappingProxyType(
    {
        fault.name: fault
        for fault in (
            Fault("throttled", "Half of the requests get 429, every other minute.", _throttled),
            Fault("outage", "Every request is answered 503, or its connection reset.", _outage),
            Fault("auth-expired", "No request is authenticated any more.", _auth_expired),
            Fault("no-access", "Every request is refused: no role allows it.", _no_access),
            Fault(
                "garbage",
                "Three of ten requests meet a fault of the catalogue, drawn by chance.",
                _garbage,
                share=GARBAGE_SHARE,
            ),
        )
    }
)
