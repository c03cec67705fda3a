"""Secrets: read from files and environment variables, kept nowhere."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from exporter.config.sign_in import Auth


def read_secret(auth: Auth) -> bytes:
    """The secret that `auth` names, an account key decoded; b"" if it names none.

    ValueError says why it cannot be used, without the secret.
    """
    place: Path | str | None = getattr(auth, auth.secret_key, None)
    if place is None:
        return b""
    try:
        given = place.read_bytes() if isinstance(place, Path) else os.fsencode(os.getenv(place, ""))
    except OSError as error:
        raise ValueError(f"{place} cannot be read: {error.strerror}") from error
    secret = given.strip()
    if not secret and isinstance(place, Path):
        raise ValueError(f"{place} is empty")
    if not secret:
        raise ValueError(f"the environment variable {place} is not set or empty")
    try:
        if auth.method == "shared_key":
            return base64.b64decode(secret, validate=True)
        if auth.method == "client_secret":
            secret.decode()
    except binascii.Error:
        raise ValueError("the key is not base64: copy it whole from the account's Keys") from None
    except UnicodeDecodeError:
        raise ValueError(f"{place} is not text") from None
    return secret


def digest(auth: Auth) -> bytes:
    """A hash that changes with the secret. ValueError says why the secret cannot be used."""
    return hashlib.sha256(read_secret(auth)).digest()


def open_to_all(auths: Iterable[Auth]) -> list[Path]:
    """The files with secrets that every user of the machine may read.

    The mode of a link's target decides: Kubernetes mounts secrets as links.
    """
    places = {getattr(auth, auth.secret_key, None) for auth in auths}
    found = []
    for file in places:
        with suppress(OSError):  # the file has gone since it was read: the next load reports it
            if isinstance(file, Path) and file.stat().st_mode & stat.S_IROTH:
                found.append(file)
    return sorted(found)
