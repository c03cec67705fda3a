"""How many files this process may have open, and who may have them."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterable
from dataclasses import dataclass

from exporter.config import Account
from exporter.config.problems import ConfigError

log = logging.getLogger(__name__)

RESERVED = 24
"""For the log, the state file, listening sockets, names and tokens."""

_CURE = "raise the limit of open files (ulimit -n, LimitNOFILE= of systemd)"


@dataclass(frozen=True)
class OpenFiles:
    """Connections that may be open at once: `polls` to Batch, `clients` of the listener."""

    polls: int
    clients: int


def raise_limit() -> int:
    """The limit of open files, which is now as high as this user may have it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft if soft != resource.RLIM_INFINITY else 2**20
    limit = 2**20 if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):  # some systems have a lower one of their own
        return soft
    return limit


def divide(limit: int, clients: int) -> OpenFiles:
    """Leave something for polls and for clients, whatever the other side takes.

    `limit`: of open files. `clients`: connections that the listener would have.
    """
    free = max(2, limit - RESERVED)
    allowed = min(clients, free // 2)
    if allowed < clients:
        log.warning("%d open files leave %d connections to clients: %s", limit, allowed, _CURE)
    return OpenFiles(polls=free - allowed, clients=allowed)


def limited(accounts: Iterable[Account], polls: int) -> list[Account]:
    """The accounts, with a `max_concurrency` that so many connections allow.

    ConfigError where there is not one for each.
    """
    found = list(accounts)
    if sum(account.max_concurrency for account in found) <= polls:
        return found
    each = polls // len(found)
    if not each:
        text = f"open files leave {polls} connections to {len(found)} accounts: {_CURE}"
        raise ConfigError((text,))
    log.warning("open files leave %d connections to each account: %s", each, _CURE)
    return [
        account.model_copy(update={"max_concurrency": min(account.max_concurrency, each)})
        for account in found
    ]
