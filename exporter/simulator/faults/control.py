"""Faults set over HTTP, on the simulator's own port and without credentials."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from aiohttp import web

from exporter.simulator.faults.controller import FAULTS, Faults, Rule

FAULTS_PATH = "/simulator/faults"

_EXAMPLE = '{"faults": [{"name": "internal-error", "share": 0.1}]}'
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "name": ((str,), "a text"),
    "operation": ((str,), "a text such as Job_List"),
    "job_id": ((str,), "a text"),
    "share": ((int, float), "a number above 0 and up to 1"),
    "count": ((int,), "a whole number, 1 or more"),
}


def fault_routes(faults: Faults) -> Sequence[web.RouteDef]:
    """Everything below /simulator: pass it to `serve`."""

    async def handle(request: web.Request) -> web.Response:
        if request.path != FAULTS_PATH:
            return _refusal(404, f"there is nothing at {request.path}: use {FAULTS_PATH}")
        if request.method == "PUT":
            try:
                faults.set(*_parse(await request.read()))
            except ValueError as error:
                return _refusal(400, str(error))
        elif request.method == "DELETE":
            faults.clear()
        elif request.method != "GET":
            return _refusal(405, f"{request.method} is not possible: use GET, PUT or DELETE")
        else:
            return _json({"active": _active(faults), "catalogue": _CATALOGUE})
        return _json({"active": _active(faults)})

    return [web.route("*", "/simulator{rest:(/.*)?}", handle)]


_CATALOGUE = {fault.name: fault.summary for fault in FAULTS.values()}


def _active(faults: Faults) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in asdict(rule).items() if value is not None}
        for rule in faults.active
    ]


def _parse(body: bytes) -> list[Rule]:
    """The rules in a body; ValueError names what is wrong, and the cure."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON ({error}): write {_EXAMPLE}") from error
    if not isinstance(content, dict) or not isinstance(content.get("faults"), list):
        raise ValueError(f"the body has no list of faults: write {_EXAMPLE}")
    for name in content.keys() - {"faults"}:
        raise ValueError(f"{name} is unknown: write {_EXAMPLE}")
    rules = []
    for index, item in enumerate(content["faults"]):
        try:
            rules.append(_rule(item))
        except ValueError as error:
            raise ValueError(f"faults[{index}]: {error}") from error
    return rules


def _rule(item: object) -> Rule:
    if not isinstance(item, dict) or "name" not in item:
        raise ValueError('no object with a name: write {"name": "internal-error"}')
    for name, value in item.items():
        if name not in _TYPES:
            raise ValueError(f"{name} is unknown: use {', '.join(_TYPES)}")
        types, cure = _TYPES[name]
        if not isinstance(value, types) or isinstance(value, bool):
            raise ValueError(f"{name} {json.dumps(value)}: write {cure}")
    return Rule(**item)


def _refusal(status: int, error: str) -> web.Response:
    return _json({"error": error}, status)


def _json(content: object, status: int = 200) -> web.Response:
    text = json.dumps(content, indent=1) + "\n"
    return web.Response(status=status, text=text, content_type="application/json")
