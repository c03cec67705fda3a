"""Times as the JSON API shows them."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from msgspec import Meta

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""ISO 8601, in UTC, to the millisecond; the later time is the greater text."""


def iso_time(moment: float | None) -> str | None:
    """A Unix time as text; None where there is none, or no calendar has it."""
    if moment is None:
        return None
    try:
        found = dt.datetime.fromtimestamp(moment, dt.UTC)
    except (ValueError, OverflowError):
        return None  # a first or last year in another time zone: nothing ended then
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")
