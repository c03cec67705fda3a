"""Faults of what the JSON says: members of wrong types, of impossible values, or not there."""

import json
import math
import re
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

from exporter.simulator.faults.bodies import change_body
from exporter.simulator.faults.fault import (
    WITH_DATES,
    WITH_IDS,
    WITH_NUMBERS,
    Fault,
    fault,
)
from exporter.simulator.operations import OPERATIONS
from exporter.simulator.server import Interceptor

LONG_ID = "x" * 100_000
INJECTION = '"} 1\nfake_metric 1\n#'

OWN_IDS = ("nodeId", "id", "poolId")
"""Members that tell a record from others of its list, the most telling first."""

_IDS = {"id", "poolId", "nodeId", "taskId"}
_FREE_TEXTS = _IDS | {"displayName", "code", "category", "message", "name", "value"}
_ENUMERATIONS = {"state", "previousState", "result", "category", "allocationState"}
_DATE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")


def change_json(change: Callable[[Any], Any]) -> Interceptor:
    """Puts what `change` makes of the parsed body in its place."""
    return change_body(lambda body: json.dumps(change(json.loads(body))).encode())


def _scalars(change: Callable[[str, Any], Any]) -> Interceptor:
    """Changes each member that is neither object nor array, by its name and value."""

    def walk(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: walk(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [walk(inner, name) for inner in value]
        return value if name.startswith("odata.") else change(name, value)

    return change_json(walk)


def _numbers(change: Callable[[Any], Any]) -> Interceptor:
    def change_number(_: str, value: Any) -> Any:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return change(value) if is_number else value

    return _scalars(change_number)


def _texts(names: set[str], change: Callable[[str], object]) -> Interceptor:
    """Changes the texts of these names."""
    return _scalars(
        lambda name, value: change(value) if name in names and isinstance(value, str) else value
    )


def _dates(change: Callable[[str], str]) -> Interceptor:
    def change_date(_: str, value: Any) -> Any:
        return change(value) if isinstance(value, str) and _DATE.fullmatch(value) else value

    return _scalars(change_date)


def _inner(change: Callable[[dict[str, Any]], Any]) -> Interceptor:
    """Changes each object inside the outermost one, those farthest in first."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return change({key: walk(inner) for key, inner in value.items()})
        return [walk(inner) for inner in value] if isinstance(value, list) else value

    return change_json(lambda whole: {key: walk(inner) for key, inner in whole.items()})


def _without_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_arrays(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return {str(index): _without_arrays(inner) for index, inner in enumerate(value)}
    return value


def _one_long_id(whole: dict[str, Any]) -> dict[str, Any]:
    records = whole.get("value", [whole])
    found = ((record, name) for record in records for name in OWN_IDS if name in record)
    for record, name in islice(found, 1):
        record[name] += LONG_ID
    return whole


def _add(text: str) -> Interceptor:
    """Behind each id, so that they still differ."""
    return _texts(_IDS, lambda value: value + text)


def _only_metadata(whole: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in whole.items() if name.startswith("odata.")}


def _values(record: dict[str, Any]) -> list[Any]:
    return list(record.values())


def _more_members(record: dict[str, Any]) -> dict[str, Any]:
    return {"addedLater": {"values": [1, "two", None, {}]}, **record}


_with_numbers = partial(fault, operations=WITH_NUMBERS)
_with_ids = partial(fault, operations=WITH_IDS)
_with_dates = partial(fault, operations=WITH_DATES)
_with_arrays = partial(fault, operations=OPERATIONS - {"Job_GetTaskCounts", "Pool_Get", "Task_Get"})

MEMBERS: tuple[Fault, ...] = (
    _with_numbers("numbers-as-text", "numbers in quotes", _numbers(str)),
    _with_numbers("numbers-as-words", "words for numbers", _numbers(lambda _: "many")),
    _with_numbers("huge-integers", "10 to the power of 400", _numbers(lambda _: 10**400)),
    _with_numbers("nan-numbers", "NaN, which JSON has not", _numbers(lambda _: math.nan)),
    _with_numbers("infinite-numbers", "Infinity, which JSON has not", _numbers(lambda _: math.inf)),
    _with_numbers("negative-numbers", "below zero", _numbers(lambda value: -value - 1)),
    _with_numbers("fractional-numbers", "half a task", _numbers(lambda value: value + 0.5)),
    _with_numbers("null-members", "null for each value", _scalars(lambda *_: None)),
    _with_numbers("objects-as-arrays", "an array for each inner object", _inner(_values)),
    _with_numbers("empty-objects", "inner objects without members", _inner(lambda _: {})),
    _with_numbers("null-objects", "null for each inner object", _inner(lambda _: None)),
    _with_numbers("unknown-members", "members of a version to come", _inner(_more_members)),
    _with_arrays("arrays-as-objects", "objects for arrays", change_json(_without_arrays)),
    fault("missing-members", "nothing but odata.metadata", change_json(_only_metadata)),
    _with_ids(
        "texts-as-numbers",
        "7 for each text",
        _scalars(lambda _, value: 7 if isinstance(value, str) else value),
    ),
    fault(
        "unknown-states",
        "states, results and categories that nobody has heard of",
        _texts(_ENUMERATIONS, lambda _: "Hibernating"),
        WITH_DATES,
    ),
    _with_dates("dates-out-of-range", "13th month", _dates(lambda _: "2024-13-45T25:61:61Z")),
    _with_dates("dates-first", "the year 1", _dates(lambda _: "0001-01-01T00:00:00Z")),
    _with_dates("dates-last", "the year 9999", _dates(lambda _: "9999-12-31T23:59:59.9999999Z")),
    _with_dates("dates-without-zone", "no Z", _dates(lambda value: value.removesuffix("Z"))),
    _with_dates("dates-nonsense", "words for dates", _dates(lambda _: "the day before yesterday")),
    _with_ids("id-huge", "an id of 100 kB", change_json(_one_long_id)),
    _with_ids("ids-with-quotes", "quotes and backslashes in ids", _add("\"'`\\")),
    _with_ids("ids-with-newlines", "line ends in ids", _add("\n\r\n\u2028")),
    _with_ids("ids-with-nul", "NUL and other control characters in ids", _add("\0\x01\x1b[2J")),
    _with_ids("ids-with-emoji", "ids beyond the basic plane", _add("\U0001f525\u202e\u0301")),
    _with_ids("ids-with-surrogates", "half of a surrogate pair in ids", _add("\ud800")),
    _with_ids("ids-with-slashes", "ids that are paths and queries", _add("/../?a=b&c#%2e%")),
    _with_ids(
        "label-injection",
        "free texts that would end a label and begin a metric of their own",
        _texts(_FREE_TEXTS, lambda value: value + INJECTION),
    ),
)
