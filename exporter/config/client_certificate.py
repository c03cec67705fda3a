"""Reading a client certificate: PEM or PFX, with or without a password.

`cryptography` is imported only where it is used, because it takes long to load.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

PASSWORD_KEY = "certificate_password_file"  # noqa: S105 - the name of a key

_EXPORT = "export the certificate together with its private key, as PEM or PFX"


class WrongPassword(ValueError):
    """The password does not open the private key."""


@dataclass(frozen=True)
class ClientCertificate:
    """A certificate and its private key.

    `pem`: the key, unencrypted, the certificate, and the rest of its chain. `thumbprint`: SHA-1 in
    hexadecimal, as the portal shows it.
    """

    pem: bytes = field(repr=False)
    not_before: dt.datetime
    not_after: dt.datetime
    thumbprint: str

    def not_valid(self, now: dt.datetime) -> str:
        """Why it cannot be used at this time, with the date; "" if it can."""
        if now < self.not_before:
            return f"is not valid before {self.not_before:%Y-%m-%d %H:%M} UTC"
        if now > self.not_after:
            return f"expired on {self.not_after:%Y-%m-%d %H:%M} UTC"
        return ""


def parse(
    data: bytes, password: bytes, name: str, password_key: str = PASSWORD_KEY
) -> ClientCertificate:
    """The certificate in a PEM or PFX file. A password that is not needed is ignored.

    `name`: the file, and `password_key`: where a password is given, for messages. ValueError says
    what is wrong and the cure; WrongPassword where another password may help.
    """
    if not data.strip():
        raise ValueError(f"{name} is empty")
    if b"-----BEGIN" in data:
        return _from_pem(data, password, name, password_key)
    return _from_pfx(data, password, name, password_key)


def _from_pem(data: bytes, password: bytes, name: str, password_key: str) -> ClientCertificate:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    found = re.finditer(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", data, re.DOTALL)
    blocks = [(each[1], each[0]) for each in found]
    keys = [block for label, block in blocks if label.endswith(b"PRIVATE KEY")]
    chain = b"\n".join(block for label, block in blocks if label.endswith(b"CERTIFICATE"))
    if not keys:
        raise ValueError(f"{name} has no private key: {_EXPORT}")
    if not chain:
        raise ValueError(f"{name} has no certificate: {_EXPORT}")
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError:
        raise ValueError(f"{name} has a damaged certificate: {_EXPORT}") from None
    is_encrypted = b"ENCRYPTED" in keys[0]
    if is_encrypted and not password:
        raise ValueError(f"{name} is encrypted: name its password in {password_key}")
    try:
        key = load_pem_private_key(keys[0], password if is_encrypted else None)
    except UnsupportedAlgorithm:
        raise ValueError(f"{name} has a private key of an unknown kind: {_EXPORT}") from None
    except (ValueError, TypeError):
        if is_encrypted:
            raise WrongPassword(f"the password does not open {name}") from None
        raise ValueError(f"{name} has a damaged private key: {_EXPORT}") from None
    return _joined(key, certificates, name)


def _from_pfx(data: bytes, password: bytes, name: str, password_key: str) -> ClientCertificate:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import pkcs12

    # PFX ::= SEQUENCE { version INTEGER {v3(3)}, ... }
    if not re.match(rb"0([\x00-\x80]|\x81.|\x82..|\x83...)\x02\x01\x03", data, re.DOTALL):
        raise ValueError(
            f"{name} is neither PEM nor PFX: {_EXPORT}; if it is base64 text, decode it first"
        )
    try:
        try:
            opened = pkcs12.load_pkcs12(data, password)
        except (ValueError, TypeError):  # TypeError: the password is not UTF-8
            opened = pkcs12.load_pkcs12(data, b"")
    except UnsupportedAlgorithm:
        raise ValueError(
            f"{name} has an encryption that is too old or unknown: export it with AES256"
        ) from None
    except ValueError as error:
        if "password" not in str(error).lower():
            raise ValueError(f"{name} is damaged: {_EXPORT}") from None
        if password:
            raise WrongPassword(f"the password does not open {name}") from None
        raise ValueError(f"{name} is encrypted: name its password in {password_key}") from None
    if opened.key is None:
        raise ValueError(f"{name} has no private key: {_EXPORT}")
    certificates = [each.certificate for each in (opened.cert, *opened.additional_certs) if each]
    if not certificates:
        raise ValueError(f"{name} has no certificate: {_EXPORT}")
    return _joined(opened.key, certificates, name)


def _joined(key: object, chain: Iterable[Certificate], name: str) -> ClientCertificate:
    """The certificate of the key, with the rest of the chain behind it, in any order."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    if not isinstance(key, RSAPrivateKey):
        raise ValueError(
            f"{name} has a private key that is not RSA: Microsoft Entra ID takes RSA only, make a"
            " certificate with an RSA key"
        )
    certificates = list(chain)
    numbers = key.public_key().public_numbers()
    fitting = []
    for each in certificates:
        try:
            public = each.public_key()
        except Exception:  # noqa: BLE001, S112 - a key of an unknown kind is not this one
            continue
        if isinstance(public, RSAPublicKey) and public.public_numbers() == numbers:
            fitting.append(each)
    if not fitting:
        raise ValueError(f"in {name} key and certificate do not belong together: {_EXPORT}")
    # One that was renewed with the same key is the better one.
    leaf = max(fitting, key=lambda each: each.not_valid_after_utc)
    rest = [each for each in certificates if each not in fitting]
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return ClientCertificate(
        pem + b"".join(each.public_bytes(Encoding.PEM) for each in (leaf, *rest)),
        leaf.not_valid_before_utc,
        leaf.not_valid_after_utc,
        leaf.fingerprint(hashes.SHA1()).hex().upper(),  # noqa: S303 - a name, not a protection
    )
