"""Basic authentication with bcrypt hashes, as in Prometheus' exporter-toolkit."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import bcrypt

CheckPassword = Callable[[bytes, bytes], bool]
"""Whether a password (first) matches a hash. It is slow, so it runs in a thread."""

_MAX_PASSWORD = 72
"""Bytes of a password that bcrypt looks at."""

_CACHED = 1000
"""Credentials that are remembered: so many that were right, and so many that were wrong."""

MAX_WAITING = 16
"""Different credentials whose hash is computed or waits for its turn."""

MAX_WAITING_OF_CLIENT = 4
"""Of these, credentials that one client sent: so that it leaves room for the others."""


class TooManyPasswords(Exception):
    """Too many passwords wait to be checked. These credentials are not checked."""


class BasicAuth:
    """Checks credentials. It hashes one password at a time and remembers the results.

    Right and wrong ones are remembered apart: however many wrong ones come, those who once
    had the right one need no hash, and so do not wait.
    """

    def __init__(self, check: CheckPassword = bcrypt.checkpw) -> None:
        self._check = check
        # Its own thread: other work in threads must not wait for passwords.
        self._thread = ThreadPoolExecutor(1, "passwords")
        # Keyed digests, so that a memory dump holds no password or fast hash of one.
        self._digest_key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._waiting: dict[bytes, asyncio.Task[bool]] = {}
        self._clients: dict[bytes, str] = {}  # that asked for what waits

    async def allows(self, users: Mapping[str, str], authorization: str, client: str = "") -> bool:
        """Whether the header Authorization, "" for none, names one of `users` and its password.

        `users`: hash by name. An unknown user costs the same work. `client`: the address that
        sent it. TooManyPasswords: ask again later.
        """
        credentials = _credentials(authorization)
        if not users or credentials is None:
            return not users
        name, password = credentials
        user = name.decode("utf-8", "replace")
        is_user = user in users
        hashed = (users[user] if is_user else self._another(users, name)).encode()
        key = self._digest(b"".join(map(self._digest, (name, password, hashed))))
        for known in (self._right, self._wrong):
            if key in known:
                known.move_to_end(key)
                return known is self._right
        if key not in self._waiting:
            of_client = list(self._clients.values()).count(client)
            if len(self._waiting) >= MAX_WAITING or of_client >= MAX_WAITING_OF_CLIENT:
                raise TooManyPasswords
            self._clients[key] = client
            check = self._find_out(key, password, hashed, is_user)
            self._waiting[key] = asyncio.create_task(check)
        # A client that goes away ends no check: another may wait for the same one.
        return await asyncio.shield(self._waiting[key])

    async def _find_out(self, key: bytes, password: bytes, hashed: bytes, is_user: bool) -> bool:
        """Check a password when it is its turn, and remember the result."""
        try:
            is_right = await self._matches(password, hashed) and is_user
        finally:
            del self._waiting[key], self._clients[key]
        known = self._right if is_right else self._wrong
        known[key] = None
        if len(known) > _CACHED:
            known.popitem(last=False)
        return is_right

    async def _matches(self, password: bytes, hashed: bytes) -> bool:
        # Longer passwords are hashed, too, so that they take the same time.
        loop = asyncio.get_running_loop()
        same = await loop.run_in_executor(
            self._thread, self._check, password[:_MAX_PASSWORD], hashed
        )
        return same and len(password) <= _MAX_PASSWORD

    def _another(self, users: Mapping[str, str], name: bytes) -> str:
        """The hash of some user, always the same one for a name, so that the cost is a real one."""
        hashes = sorted(users.values())
        return hashes[int.from_bytes(self._digest(name)) % len(hashes)]

    def _digest(self, text: bytes) -> bytes:
        return hmac.digest(self._digest_key, text, hashlib.sha256)


def _credentials(authorization: str) -> tuple[bytes, bytes] | None:
    """(user, password) of a header; None where it holds none."""
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    user, colon, password = decoded.partition(b":")
    return (user, password) if colon else None
