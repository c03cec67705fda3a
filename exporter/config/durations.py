"""Prometheus durations: `30s`, `5m`, `1h30m`."""

from __future__ import annotations

import math
import re

_UNITS = {
    "y": 365 * 86400.0,
    "w": 7 * 86400.0,
    "d": 86400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 0.001,
}

PATTERN = "^(0|(?=.)" + "".join(rf"([0-9]+{unit})?" for unit in _UNITS) + ")$"
"""A regular expression for the whole text, also valid in JSON Schema."""

MAX_DURATION = 290 * 365 * 86400.0
"""Seconds. Prometheus, too, ends there: nanoseconds in 64 bits."""

_REGEX = re.compile(PATTERN)


def parse_duration(text: str) -> float:
    """Seconds in a Prometheus duration; ValueError if it is none."""
    if _REGEX.fullmatch(text) is None:
        near = _near_miss(text)
        cure = f"did you mean {near}?" if near else "write for example 30s, 5m or 1h30m"
        raise ValueError(f"{text!r} is not a duration: {cure}")
    parts = re.findall("([0-9]+)([a-z]+)", text)
    total = math.fsum(float(count) * _UNITS[unit] for count, unit in parts)
    if total > MAX_DURATION:
        raise ValueError(f"{text[:20]} is too long: at most {format_duration(MAX_DURATION)}")
    return total


_WORDS = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hr": "h", "hour": "h",
          "day": "d", "week": "w", "year": "y", "millisecond": "ms", "msec": "ms"}  # fmt: skip

_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([a-z]+)")


def _near_miss(text: str) -> str:
    """The duration that a text was meant to be, or ""."""
    total, rest = 0.0, text.strip().lower()
    while rest and (match := _PART.match(rest)):
        word = match[2] if match[2] in _UNITS else match[2].removesuffix("s")
        unit = _WORDS.get(word, word)
        if unit not in _UNITS:
            return ""
        total += float(match[1]) * _UNITS[unit]
        rest = rest[match.end() :].lstrip(" ,")
    return "" if rest or not 0 < total <= MAX_DURATION else format_duration(total)


def format_duration(seconds: float) -> str:
    """The shortest Prometheus duration for a number of seconds, to the millisecond."""
    rest = round(seconds * 1000)
    text = ""
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, round(size * 1000))
        text += f"{count}{unit}" if count else ""
    return text or "0"
