"""Reading a long list by its changes: all of it now and then, between only what is new.

What a $filter selects by time may come late or be missed; a full listing corrects that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, TypeVar

from exporter.batch.errors import ServiceError

T = TypeVar("T")

OVERLAP = 60.0
"""Seconds before the last reading from which changes are read again.

The service's index may show an update late, and clocks differ: by a second or two, for readings
are timed by the service's own. What comes later still, the next full listing finds and counts as
a correction. Not longer: each poll reads again, and compares, all that changed in this time.
"""


class Api(Protocol):
    """What reading by changes needs of the client."""

    @property
    def clock_offset(self) -> float: ...

    def is_filter_refused(self, operation: str) -> bool: ...

    def refuse_filter(self, operation: str, error: ServiceError) -> None: ...


class ReadTimes(Protocol):
    """When the last reading and the last full one began, in Unix seconds of the service."""

    @property
    def read_at(self) -> float: ...

    @property
    def listed_at(self) -> float: ...


class Window(NamedTuple):
    """What a reading covers.

    `started`: when it began, in Unix seconds of the service.
    `since`: changes from then on were asked for; None: everything was.
    """

    started: float
    since: float | None


async def read_changes(
    api: Api,
    operation: str,
    times: ReadTimes | None,
    resync_interval: float,
    now: float,
    listing: Callable[[float | None], Awaitable[T]],
) -> tuple[T, Window]:
    """What `listing(since)` gives, and of what.

    Everything where nothing was read yet (no times), the last full listing is too long ago, or
    the service refuses the filter.
    """
    started = now + api.clock_offset
    if (
        times is not None
        and started - times.listed_at < resync_interval
        and not api.is_filter_refused(operation)
    ):
        since = missed_before(times)
        try:
            return await listing(since), Window(started, since)
        except ServiceError as error:
            if error.status != 400:
                raise
            api.refuse_filter(operation, error)
    return await listing(None), Window(started, None)


def missed_before(times: ReadTimes) -> float:
    """What is older than this and not known yet, reading by changes has missed."""
    return times.read_at - OVERLAP
