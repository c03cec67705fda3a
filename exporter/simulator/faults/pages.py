"""Faults of lists: links that lead astray, and records that come twice, late or not at all."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from exporter.simulator.error_answers import BatchError, invalid_parameter
from exporter.simulator.faults.answers import body_of, elsewhere, url_of, with_body
from exporter.simulator.faults.fault import LISTS, Fault, fault
from exporter.simulator.faults.json_members import OWN_IDS
from exporter.simulator.operations import Call
from exporter.simulator.server import Interceptor, Proceed

GROWTH = 20
"""So many pages a list grows by while it is read."""

_LINK = "odata.nextLink"

# A link that we make up differs from the one that it was made from in `timeout`, which every
# operation takes and which changes nothing: no memory of who was given what is needed.
_MARK = 100_000

Page = dict[str, Any]
Change = Callable[[Page, web.Request, Call], Page]


def _step(call: Call) -> int:
    """How many made-up links led here."""
    timeout = call.parameters.get("timeout", "0")
    return max(0, int(timeout) - _MARK) if timeout.isdecimal() else 0


def _link_to(step: int, request: web.Request, call: Call) -> str:
    parts = urlsplit(url_of(request, call))
    kept = [part for part in parts.query.split("&") if not part.lower().startswith("timeout=")]
    return parts._replace(query="&".join([*kept, f"timeout={_MARK + step}"])).geturl()


def _change_page(change: Change) -> Interceptor:
    async def play(request: web.Request, call: Call, proceed: Proceed) -> web.StreamResponse:
        response = await proceed()
        body = body_of(response)
        if body is None:
            return response
        page = change(json.loads(body), request, call)
        return with_body(response, json.dumps(page).encode())

    return play


def _link(target: Callable[[web.Request, Call], object]) -> Interceptor:
    return _change_page(lambda page, request, call: {**page, _LINK: target(request, call)})


def _records(change: Callable[[list[Any]], list[Any]]) -> Interceptor:
    return _change_page(lambda page, *_: {**page, "value": change(page["value"])})


def _endless(request: web.Request, call: Call) -> str:
    return f"{url_of(request, call)}&$skiptoken={'x' * 100_000}"


def _relative(request: web.Request, _call: Call) -> str:
    return request.raw_path


def _circle(request: web.Request, call: Call) -> str:
    return _link_to(1 - min(_step(call), 1), request, call)


def _empty_first(page: Page, request: web.Request, call: Call) -> Page:
    if _step(call):
        return page
    return {**page, "value": [], _LINK: _link_to(1, request, call)}


def _empty_for_ever(page: Page, request: web.Request, call: Call) -> Page:
    return {**page, "value": [], _LINK: _link_to(_step(call) + 1, request, call)}


def _again(page: Page, request: web.Request, call: Call) -> Page:
    return page if _step(call) else {**page, _LINK: _link_to(1, request, call)}


def _half_and_no_more(page: Page, *_: object) -> Page:
    records = page["value"]
    return {
        **{name: value for name, value in page.items() if name != _LINK},
        "value": records[: len(records) // 2],
    }


def _growing(page: Page, request: web.Request, call: Call) -> Page:
    """Behind the last page comes one more, of records made meanwhile, and so on for a while."""
    step = _step(call)
    if step:
        page = {**page, "value": [_copy(record, step) for record in page["value"]]}
    if _LINK not in page and step < GROWTH:
        page = {**page, _LINK: _link_to(step + 1, request, call)}
    return page


def _copy(record: dict[str, Any], number: int) -> dict[str, Any]:
    own = [name for name in OWN_IDS if name in record][:1]
    return {**record, **{name: f"{record[name]}-{number}" for name in own}}


def _in_pools(number: int) -> Change:
    """So many copies of a record, each in a pool of its own; the true records come first."""

    def change(page: Page, *_: object) -> Page:
        true = page["value"]
        copies = [{**true[0], "poolId": f"pool-{n}"} for n in range(number if true else 0)]
        return {**page, "value": [*true, *copies]}

    return change


def _fail_behind(error: Callable[[], BatchError]) -> Interceptor:
    """The first page is as ever, but says that there is a second one; that fails."""

    async def play(request: web.Request, call: Call, proceed: Proceed) -> web.StreamResponse:
        if _step(call) or "$skiptoken" in call.parameters:
            raise error()
        return await follow(request, call, proceed)

    follow = _change_page(_again)
    return play


def _expired() -> BatchError:
    return invalid_parameter("$skiptoken", "WATV2", "The skip token has expired")


_list = partial(fault, operations=LISTS)
_nodes = partial(fault, operations=frozenset({"Job_ListPreparationAndReleaseTaskStatus"}))

PAGES: tuple[Fault, ...] = (
    _list("next-link-elsewhere", "nextLink leads to another origin", _link(elsewhere)),
    _list("next-link-to-itself", "nextLink leads to the page that it is on", _link(url_of)),
    _list("next-link-circle", "two pages whose nextLinks lead to each other", _link(_circle)),
    _list("next-link-no-url", "nextLink is no URL", _link(lambda *_: "http://[::bad:port/\0")),
    _list("next-link-empty", "nextLink is an empty text", _link(lambda *_: "")),
    _list("next-link-number", "nextLink is a number", _link(lambda *_: 2)),
    _list("next-link-relative", "nextLink is a path without a host", _link(_relative)),
    _list("next-link-huge", "nextLink is 100,000 characters long", _link(_endless)),
    _nodes("foreign-pools", "500 records more, each of another pool", _change_page(_in_pools(500))),
    _nodes("pool-flood", "8,000 records more, each of another pool", _change_page(_in_pools(8000))),
    _list("next-link-dropped", "half a page, and no nextLink", _change_page(_half_and_no_more)),
    _list("next-page-refused", "400 for all pages but the first", _fail_behind(_expired)),
    _list(
        "next-page-fails",
        "500 for all pages but the first",
        _fail_behind(lambda: BatchError(500, "InternalError", "Server encountered an error.")),
    ),
    _list("empty-pages", "an empty page before each true one", _change_page(_empty_first)),
    _list("endless-empty-pages", "empty pages without end", _change_page(_empty_for_ever)),
    _list("repeated-pages", "each page comes twice", _change_page(_again)),
    _list("duplicate-records", "each record comes twice on its page", _records(lambda r: r + r)),
    _list("reordered-records", "records in reverse order", _records(lambda r: r[::-1])),
    _list("growing-list", "20 pages more while it is read", _change_page(_growing)),
)
