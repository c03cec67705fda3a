"""Simulated time as the service keeps it: integer steps of 100 nanoseconds since 1970-01-01 UTC.

Integers make the simulation exact: the same events fall on the same tick however the world is
advanced, and the wire's seven fractional digits lose nothing.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

SECOND = 10_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

INFINITE = 2**63 - 1
"""A span of .NET's TimeSpan.MaxValue, which the service writes where there is no limit."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_OF_DOTNET = 621_355_968_000_000_000  # ticks from 0001-01-01 to 1970-01-01


def from_datetime(moment: datetime) -> int:
    """The tick of an aware datetime (microseconds, so a multiple of ten)."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 10


def to_datetime(tick: int) -> datetime:
    """The UTC datetime of a tick; the seventh digit is cut off."""
    return _EPOCH + timedelta(microseconds=tick // 10)


def to_seconds(tick: int) -> float:
    """Unix seconds of a moment, or the seconds of a span; exact to about a quarter microsecond."""
    return tick / SECOND


def etag(tick: int) -> str:
    """The entity tag of something last modified at this tick, unquoted as the service has it."""
    return f"0x{tick + _EPOCH_OF_DOTNET:X}"


@lru_cache(maxsize=8192)  # pages of many entities repeat their seconds
def _second(whole: int) -> str:
    return (_EPOCH + timedelta(seconds=whole)).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp(tick: int) -> str:
    """`2025-09-03T22:41:21.121862Z`: up to seven digits, trailing zeros trimmed as .NET does."""
    whole, fraction = divmod(tick, SECOND)
    text = _second(whole)
    if not fraction:
        return text + "Z"
    digits = f"{fraction:07d}".rstrip("0")
    return f"{text}.{digits}Z"


def full_timestamp(tick: int) -> str:
    """The same with all seven digits, as the text of an error has it."""
    whole, fraction = divmod(tick, SECOND)
    text = _second(whole)
    return f"{text}.{fraction:07d}Z"


def duration(span: int) -> str:
    """A span as ISO 8601: `PT1H2M3.5S`, `P7D`, `PT0S`; INFINITE is .NET's largest."""
    days, rest = divmod(span, DAY)
    hours, rest = divmod(rest, HOUR)
    minutes, rest = divmod(rest, MINUTE)
    whole, fraction = divmod(rest, SECOND)
    clock = f"{hours}H" if hours else ""
    clock += f"{minutes}M" if minutes else ""
    if fraction:
        clock += f"{whole}.{fraction:07d}".rstrip("0") + "S"
    elif whole:
        clock += f"{whole}S"
    text = (f"{days}D" if days else "") + (f"T{clock}" if clock else "")
    return f"P{text}" if text else "PT0S"
