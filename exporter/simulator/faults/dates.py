"""Faults of the service's clock, as the header Date tells it."""

from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime

from aiohttp import web

from exporter.simulator.faults.answers import CLOSE, JSON_TYPE, body_of, close, head, send
from exporter.simulator.faults.fault import Fault, fault
from exporter.simulator.operations import Call
from exporter.simulator.server import Interceptor, Proceed, service_time


def _dated(date: Callable[[web.Request], str]) -> Interceptor:
    async def play(request: web.Request, _call: Call, proceed: Proceed) -> web.StreamResponse:
        response = await proceed()
        response.headers["Date"] = date(request)
        return response

    return play


def _skewed(hours: float) -> Interceptor:
    ahead = timedelta(hours=hours)
    return _dated(lambda request: format_datetime(service_time(request) + ahead, usegmt=True))


async def _undated(request: web.Request, _call: Call, proceed: Proceed) -> web.StreamResponse:
    response = await proceed()
    body = body_of(response)
    if body is None:
        return response
    # Every other way of answering adds the header.
    await send(request, head((JSON_TYPE, ("Content-Length", str(len(body))), CLOSE)), body)
    return close(request)


DATES: tuple[Fault, ...] = (
    fault("date-ahead", "the service's clock is an hour ahead", _skewed(1)),
    fault("date-behind", "the service's clock is an hour behind", _skewed(-1)),
    fault("date-missing", "no header Date", _undated),
    fault("date-nonsense", "a header Date that is none", _dated(lambda _: "around noon")),
)
