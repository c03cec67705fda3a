"""Faults of the body as text: what is not JSON, or no JSON that anybody expects."""

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from exporter.simulator.faults.answers import body_of, with_body
from exporter.simulator.faults.fault import Fault, fault
from exporter.simulator.operations import Call
from exporter.simulator.server import Interceptor, Proceed

DEPTH = 100_000
"""So many arrays inside one another."""

_NEST = b"[" * DEPTH + b"]" * DEPTH


def change_body(change: Callable[[bytes], bytes]) -> Interceptor:
    """Puts what `change` makes of the true body in its place."""

    async def play(_request: web.Request, _call: Call, proceed: Proceed) -> web.StreamResponse:
        response = await proceed()
        body = body_of(response)
        return response if body is None else with_body(response, change(body))

    return play


def _instead(body: bytes) -> Interceptor:
    return change_body(lambda _: body)


def _with_member(body: bytes, name: bytes, value: bytes) -> bytes:
    """One more member at the end of the outermost object."""
    return body[: body.rindex(b"}")] + b',"%s":%s}' % (name, value)


def _doubled(value: Any) -> str:
    """Each member twice, first null: the last one counts with most who read JSON."""
    if isinstance(value, dict):
        members = (f"{json.dumps(k)}:null,{json.dumps(k)}:{_doubled(v)}" for k, v in value.items())
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_doubled, value)) + "]"
    return json.dumps(value)


BODIES: tuple[Fault, ...] = (
    fault(
        "truncated-json",
        "the first half of the body, as if it were all",
        change_body(lambda body: body[: len(body) // 2]),
    ),
    fault(
        "invalid-json",
        "quotes that JSON does not know",
        change_body(lambda body: body.replace(b'"', b"'")),
    ),
    fault("two-documents", "the body twice in a row", change_body(lambda body: body + body)),
    fault("empty-body", "200 and not one byte", _instead(b"")),
    fault("json-null", "null instead of an object", _instead(b"null")),
    fault("json-array", "an empty array instead of an object", _instead(b"[]")),
    fault("json-text", "a text instead of an object", _instead(b'"jobs"')),
    fault("json-number", "a number instead of an object", _instead(b"42")),
    fault("json-empty-object", "an object without members", _instead(b"{}")),
    fault(
        "nested-deep",
        "100,000 arrays inside one another, where the records should be",
        _instead(b'{"value":' + _NEST + b',"taskCounts":' + _NEST + b"}"),
    ),
    fault(
        "nested-deep-unknown",
        "the true answer with an unknown member 100,000 levels deep",
        change_body(lambda body: _with_member(body, b"addedLater", _NEST)),
    ),
    fault(
        "duplicate-keys",
        "every member twice, first null",
        change_body(lambda body: _doubled(json.loads(body)).encode()),
    ),
    fault(
        "invalid-utf8",
        "bytes in every text that are no UTF-8",
        change_body(lambda body: body.replace(b':"', b':"\xc3\x28\xff')),
    ),
    fault(
        "utf16",
        "the body in UTF-16 with a byte order mark",
        change_body(lambda body: body.decode().encode("utf-16")),
    ),
    fault(
        "byte-order-mark",
        "a UTF-8 byte order mark before the JSON",
        change_body(lambda body: b"\xef\xbb\xbf" + body),
    ),
)
