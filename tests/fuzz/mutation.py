"""Valid inputs made slightly wrong: members dropped, nulled, of another type, huge, foreign.

What chooses is a parameter: hypothesis, which finds the smallest wrong input, or plain chance.
"""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

import yaml

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**400),
    *(0.5, -0.0, 1e308, -1e308, 1e-320),
    *("", " ", "0", "-1", "9" * 400, "1e999", "NaN", "Infinity", "null", "true", "a\0b", "\n"),
    *('x"} 1\ny{z="', "\\", "ü\U0001f600\u2028", "\ufeff", "x" * 3000, "İ", "total", "unknown"),
    *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.9999999Z"),
    *("9999-12-31T23:59:59-23:59", "2026-01-01T00:00:00", "2026-02-30T00:00:00Z", "P1Y"),
    *("PT0S", "-PT1S", "P" + "9" * 400 + "D", "P10675199DT2H48M5.4775807S", "5s", "9" * 20 + "y"),
    *("completed", "running", "active", "failure", "success", "a{99999999999}", "((", "${a}"),
    *([], {}, [None], [[]], {"": None}),
)
"""Any of these may stand in place of any value."""

TOKENS = (
    *("(", ")", "'", '"', ",", ";", "=", ":", "/", "\\", "@", "#", "?", "&", "%", "*", "-", "+"),
    *(".", "\n", "\r", "\t", "\0", " ", "[", "]", "{", "}", "&a", "*a", "!!int", "!!timestamp"),
    *("!!binary", "!!set", "<<", "|", ">", "---", "'0001-01-01T00:00:00+23:59'", "²", "٣"),
    *(" and ", " or ", " not ", " eq ", "datetime'", "startswith(", "true", "null", "9" * 400),
    *("9" * 5000, "-1", "0", "1e999", "nan", "q=", "gzip", "*/*", "\ufffd", "ü", "\u2028", "%00"),
    *("GMT", "-2400", "+9999", "Dec", "9999", "0001", "//", "[::1]", "xn--", ":80", "http", "P"),
    *("(" * 3000, "[" * 3000, "state eq 'active' or " * 3000),
)

_PARTS = re.compile(r"\w+|\W")


def mutate(data: bytes, random: Random) -> bytes:
    """Another input, one to four mutations away."""
    for _ in range(random.randint(1, 4)):
        how = random.choice((_mutate_structure, _mutate_text))
        data = how(data, random)
    return data


def _mutate_structure(data: bytes, random: Random) -> bytes:
    lines = data.split(b"\n") if data.startswith(b"{") else [data]
    at = random.randrange(len(lines))
    try:
        # What JSON is, is YAML too; YAML alone is read ten times as slowly.
        document = json.loads(lines[at]) if lines[at][:1] in (b"{", b"[") else _yaml(data)
    except (ValueError, RecursionError, yaml.YAMLError):
        return _mutate_text(data, random)
    if not isinstance(document, dict | list):
        return _mutate_text(data, random)
    places = list(_places(document))
    if not places:
        return _mutate_text(data, random)
    container, key = random.choice(places)
    match random.randrange(5):
        case 0:
            del container[key]
        case 1 | 2:
            container[key] = random.choice(VALUES)
        case 3:
            other, other_key = random.choice(places)
            container[key] = json.loads(json.dumps(other[other_key]))
        case _ if isinstance(container, list):
            container.insert(key, json.loads(json.dumps(container[key])))
        case _:
            name = random.choice(VALUES)
            container[name if isinstance(name, str) else str(name)] = container.pop(key)
    lines[at] = json.dumps(document, ensure_ascii=False, default=str).encode("utf-8", "replace")
    return b"\n".join(lines)


def _yaml(data: bytes) -> Any:
    if len(data) > 20_000:
        return None
    try:
        # Through JSON: what an alias stands for is a copy, and no circle.
        return json.loads(json.dumps(yaml.safe_load(data), default=str))
    except (AttributeError, KeyError, TypeError, IndexError):  # of yaml, on odd scalars
        return None


def _places(node: Any) -> Any:
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _places(node[key])


def _mutate_text(data: bytes, random: Random) -> bytes:
    parts = _PARTS.findall(data.decode("utf-8", "replace")) or [""]
    at = random.randrange(len(parts))
    match random.randrange(5):
        case 0:
            del parts[at]
        case 1:
            parts[at] = random.choice(TOKENS)
        case 2:
            parts.insert(at, random.choice(TOKENS))
        case 3:
            parts.insert(random.randrange(len(parts)), parts[at])
        case _:
            del parts[at : at + random.randrange(1, 10)]
    return "".join(parts).encode()
