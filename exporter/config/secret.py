"""Secrets: read from files and environment variables, kept nowhere."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from exporter.config.sign_in import Auth


def read_secret(file: Path | None, variable: str | None) -> str:
    """A secret from a file or an environment variable. ValueError says what is wrong with it."""
    if file is not None:
        try:
            secret = file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"{file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} is not text") from error
        if not secret:
            raise ValueError(f"{file} is empty")
        return secret
    secret = os.environ.get(variable or "", "").strip()
    if not secret:
        raise ValueError(f"the environment variable {variable} is not set or empty")
    return secret


def read_account_key(auth: Auth) -> bytes:
    """The account key of method shared_key. ValueError says what is wrong, without the key."""
    try:
        key = base64.b64decode(read_secret(auth.key_file, auth.key_env), validate=True)
    except binascii.Error:
        raise ValueError("the key is not base64: copy it whole from the account's Keys") from None
    return key


def open_to_all(auths: Iterable[Auth]) -> list[Path]:
    """The files with secrets that every user of the machine may read.

    What a link leads to decides, as for who opens it: Kubernetes mounts secrets as links.
    """
    files = {
        file
        for auth in auths
        for file in (auth.key_file, auth.client_secret_file, auth.certificate_file)
        if file is not None
    }
    return sorted(file for file in files if _mode(file) & stat.S_IROTH)


def _mode(file: Path) -> int:
    try:
        return file.stat().st_mode
    except OSError:
        return 0  # it went since it was read: the next load says so


def digest(auth: Auth) -> bytes:
    """Tells whether a secret is still what it was. ValueError says what is wrong with it."""
    found = ""
    if auth.method == "shared_key":
        found = read_secret(auth.key_file, auth.key_env)
    elif auth.method == "client_secret":
        found = read_secret(auth.client_secret_file, auth.client_secret_env)
    elif auth.certificate_file is not None:
        found = read_secret(auth.certificate_file, None)
    return hashlib.sha256(found.encode()).digest()


def problems(auth: Auth) -> list[tuple[str, str]]:
    """(key, what is wrong with it) of each secret of `auth` that cannot be read."""
    try:
        if auth.method == "shared_key":
            field = "key_file" if auth.key_file else "key_env"
            read_account_key(auth)
        elif auth.method == "client_secret":
            field = "client_secret_file" if auth.client_secret_file else "client_secret_env"
            read_secret(auth.client_secret_file, auth.client_secret_env)
        elif auth.method == "client_certificate" and auth.certificate_file:
            field = "certificate_file"
            try:
                auth.certificate_file.read_bytes()
            except OSError as error:
                raise ValueError(
                    f"{auth.certificate_file} cannot be read: {error.strerror}"
                ) from error
    except ValueError as error:
        return [(field, str(error))]
    return []
