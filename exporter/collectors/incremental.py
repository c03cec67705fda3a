"""Reads a long list by its changes: all of it now and then, in between only what is new.

A $filter by time may show a record late or miss it; the next full listing corrects that.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from exporter.batch.client import BatchClient
from exporter.batch.errors import ServiceError

log = logging.getLogger(__name__)

T = TypeVar("T")

OVERLAP = 60.0
"""Seconds before the last reading from which changes are read again.

The service's index may show an update late. The clocks differ by a second or two at most, because
readings are timed by the service's clock. The next full listing counts later updates as
corrections. A longer overlap costs more: each poll reads and compares all its changes again.
"""


class ReadTimes(msgspec.Struct, frozen=True, gc=False):
    """When the last reading and the last full listing began, in Unix seconds of the service."""

    read_at: float = 0.0
    listed_at: float = 0.0


async def read_changes(
    client: BatchClient,
    operation: str,
    times: ReadTimes | None,
    resync_interval: float,
    now: float,
    listing: Callable[[float | None], Awaitable[T]],
) -> tuple[T, float]:
    """What `listing(since)` returns, and when the reading began.

    `since` is None, for a full listing, if nothing was read yet (`times` is None), if the last full
    listing is too long ago, if the service refuses the filter, or if an earlier reading seems to be
    still to come, because a clock was wrong. Both times are Unix seconds of the service.
    """
    started = now + client.clock.offset_for_changes
    if (
        times is not None
        and 0.0 <= started - times.listed_at < resync_interval
        and times.read_at <= started
        and operation not in client.refused_filters
    ):
        try:
            return await listing(missed_before(times, started)), started
        except ServiceError as error:
            if error.status != 400 or error.account_wide:
                raise
            if operation not in client.refused_filters:  # another poll may have noted it
                client.refused_filters.add(operation)
                log.warning(
                    "%s: the service refuses the filter, reading all instead: %s", operation, error
                )
    return await listing(None), started


def missed_before(times: ReadTimes, started: float) -> float:
    """A change before this time that a full listing shows first was missed by reading changes.

    `started`: when that listing began.
    """
    return min(times.read_at, started) - OVERLAP
