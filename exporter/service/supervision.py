"""Restarts work that must not end: unexpected errors are logged and counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

RESTART_AFTER = 5.0
"""Seconds between an error and the next try."""


async def supervised(
    name: str, run: Callable[[], Awaitable[None]], on_error: Callable[[str], None]
) -> None:
    """Run something that should never end until cancelled; begin anew where it ended.

    `on_error(name)` is told each time.
    """
    while True:
        try:
            await run()
            log.error("%s: ended by itself, begins anew", name)
        except Exception:
            log.exception("%s: unexpected error, begins anew", name)
        on_error(name)
        await asyncio.sleep(RESTART_AFTER)
