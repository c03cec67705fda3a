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

_CACHED = 100


class BasicAuth:
    """Checks credentials. It hashes one password at a time and caches the results."""

    def __init__(self, check: CheckPassword = bcrypt.checkpw) -> None:
        self._check = check
        self._turn = asyncio.Lock()
        # Its own thread: other work in threads must not wait for passwords.
        self._thread = ThreadPoolExecutor(1, "passwords")
        # Keyed digests, so that a memory dump holds no password or fast hash of one.
        self._digest_key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, bool] = OrderedDict()

    async def allows(self, users: Mapping[str, str], authorization: str) -> bool:
        """Whether the header Authorization, "" for none, names one of `users` and its password.

        `users`: hash by name. An unknown user costs the same work.
        """
        credentials = _credentials(authorization)
        if not users or credentials is None:
            return not users
        name, password = credentials
        user = name.decode("utf-8", "replace")
        is_user = user in users
        hashed = (users[user] if is_user else self._another(users, name)).encode()
        key = self._digest(b"".join(map(self._digest, (name, password, hashed))))
        if key not in self._known:
            async with self._turn:
                # Another request may have checked the same password meanwhile.
                if key not in self._known:
                    self._known[key] = await self._matches(password, hashed)
                while len(self._known) > _CACHED:
                    self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key] and is_user

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
