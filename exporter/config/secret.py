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

from exporter.config import client_certificate, files
from exporter.config.client_certificate import ClientCertificate
from exporter.config.sign_in import Auth


class SecretError(ValueError):
    """Why a secret cannot be used, without the secret. `key`: the one of `auth` to mend."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def read_secret(auth: Auth) -> bytes:
    """The secret that `auth` names, an account key decoded; b"" if it names none.

    Of a certificate: the file as it is. SecretError says why it cannot be used.
    """
    if not auth.secret_keys:
        return b""
    key = auth.secret_keys[0]
    given = _read(auth, key)
    if auth.method == "client_certificate":
        return given  # the last byte of a PFX may look like white space
    secret = given.removeprefix(b"\xef\xbb\xbf").strip()  # Windows writes this mark first
    try:
        if auth.method == "shared_key":
            return base64.b64decode(secret, validate=True)
        secret.decode()
    except binascii.Error:
        text = "the key is not base64: copy it whole from the account's Keys"
        raise SecretError(key, text) from None
    except UnicodeDecodeError:
        raise SecretError(key, f"{getattr(auth, key)} is not text") from None
    if len(secret.split()) > 1 or secret[:1] + secret[-1:] in (b"''", b'""'):
        text = (
            f"{getattr(auth, key)} has white space or quotes in it: write the secret's value alone"
        )
        raise SecretError(key, text)
    return secret


def read_certificate(auth: Auth) -> ClientCertificate:
    """The client certificate that `auth` names. SecretError says why it cannot be used."""
    name, password_key = str(auth.certificate_file), ""
    data, password = read_secret(auth), b""
    if len(auth.secret_keys) > 1:
        password_key = auth.secret_keys[1]
        password = _read(auth, password_key).rstrip(b"\r\n")  # a password may have other spaces
    try:
        return client_certificate.parse(data, password, name)
    except client_certificate.WrongPassword as error:
        raise SecretError(password_key, str(error)) from error
    except ValueError as error:
        raise SecretError("certificate_file", str(error)) from error


def digest(auth: Auth) -> bytes:
    """A hash that changes with the secret, and with the password of a certificate.

    SecretError says why one cannot be read.
    """
    parts = (hashlib.sha256(_read(auth, key)).digest() for key in auth.secret_keys)
    return hashlib.sha256(b"".join(parts)).digest()


def _read(auth: Auth, key: str) -> bytes:
    """What stands in the file or the variable that a key names, and is not empty."""
    place: Path | str = getattr(auth, key)
    try:
        given = files.read(place) if isinstance(place, Path) else os.fsencode(os.getenv(place, ""))
    except OSError as error:
        raise SecretError(key, f"{place} cannot be read: {error.strerror}") from error
    if given.strip():
        return given
    if isinstance(place, Path):
        raise SecretError(key, f"{place} is empty")
    # One with small letters may be the secret itself.
    name = f" {place}" if place == place.upper() else ", whose name stands here,"
    raise SecretError(key, f"the environment variable{name} is not set or empty")


def open_to_all(auths: Iterable[Auth]) -> list[Path]:
    """The files with secrets that every user of the machine may read.

    The mode of a link's target decides: Kubernetes mounts secrets as links.
    """
    places = {getattr(auth, key) for auth in auths for key in auth.secret_keys}
    found = []
    for file in places:
        with suppress(OSError):  # the file has gone since it was read: the next load reports it
            if isinstance(file, Path) and file.stat().st_mode & stat.S_IROTH:
                found.append(file)
    return sorted(found)
