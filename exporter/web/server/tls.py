"""Makes an ssl.SSLContext from the TLS section of the web configuration file."""

from __future__ import annotations

import ipaddress
import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from exporter.config import files
from exporter.web.server.web_config import TlsServerConfig

_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1_2,  # stricter: OpenSSL has no older versions
    "TLS11": ssl.TLSVersion.TLSv1_2,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_CURVES = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}


class TlsError(Exception):
    """A section that cannot be used. `key`: the key at fault, or "". The text has no secret."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def build_context(tls: TlsServerConfig) -> tuple[ssl.SSLContext, str]:
    """The context of a listener, and the PEM text of the client CA, "" for none.

    Reads the files; TlsError where they cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.maximum_version = _VERSIONS[tls.max_version]
    context.set_alpn_protocols(["http/1.1"])
    if not tls.prefer_server_cipher_suites:  # Python's default is the server's order
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if tls.tls12_suites:
        context.set_ciphers(":".join(map(_openssl_name, tls.tls12_suites)))
    elif tls.cipher_suites:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    for curve in tls.curve_preferences:
        try:
            context.set_ecdh_curve(_CURVES[curve])
        except ssl.SSLError:  # older releases of Python lack X25519
            text = f"this Python cannot use {curve}: take another curve, or a newer Python"
            raise TlsError("curve_preferences", text) from None
    _load_certificate(context, tls)
    text = ""
    if tls.verifies:
        context.verify_mode = ssl.CERT_REQUIRED if tls.requires else ssl.CERT_OPTIONAL
        # As in Go, each certificate in the file is trusted, not only self-signed ones.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        key, text = _pem(tls, "client_ca", "CERTIFICATE")
        try:
            context.load_verify_locations(cadata=text)
        except ssl.SSLError:
            raise TlsError(key, "holds a certificate that is damaged") from None
    return context, text


def _load_certificate(context: ssl.SSLContext, tls: TlsServerConfig) -> None:
    cert_key, certificate = _pem(tls, "cert", "CERTIFICATE")
    key_key, private_key = _pem(tls, "key", "PRIVATE KEY")
    if "ENCRYPTED" in private_key:
        raise TlsError(key_key, "the key is encrypted: write it without a passphrase")
    try:
        with ExitStack() as stack:
            cert_file, key_file = (
                stack.enter_context(_file_with(text)) for text in (certificate, private_key)
            )
            context.load_cert_chain(cert_file, key_file, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(key_key, "the key does not belong to the certificate") from None
        if error.reason and error.reason.endswith("_TOO_SMALL"):  # or _TOO_WEAK, of a digest
            raise TlsError(cert_key, "the certificate's key is too short for OpenSSL") from None
        reason = (error.reason or "damaged").lower().replace("_", " ")
        raise TlsError("", f"certificate and key cannot be used: {reason}") from None


def _no_password() -> str:
    return ""  # without a callback OpenSSL would ask on the terminal


def _pem(tls: TlsServerConfig, name: str, kind: str) -> tuple[str, str]:
    """The key of the section that gives `name`, and its PEM text, from its file or itself."""
    inline: str | None = getattr(tls, name)
    if inline is not None:
        key, text = name, _ascii(inline.encode())
    else:
        key = f"{name}_file"
        text = _read(getattr(tls, key), key)
    if f"{kind}-----" not in text:
        raise TlsError(key, f"holds no {kind.lower()} in PEM, -----BEGIN {kind}-----")
    return key, text


def _read(file: Path, key: str) -> str:
    try:
        return _ascii(files.read(file))
    except OSError as error:
        raise TlsError(key, f"{file} cannot be read: {error.strerror}") from None


def _ascii(pem: bytes) -> str:
    # Non-ASCII text in PEM can only be a comment, which ssl would refuse.
    return pem.decode("ascii", "ignore")


@contextmanager
def _file_with(text: str) -> Iterator[str]:
    """A file with this text, since OpenSSL loads a certificate chain from a file only.

    On Linux it is in memory, because the root file system may be read-only.
    """
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("pem", os.MFD_CLOEXEC)
        try:
            os.write(number, text.encode())
            yield f"/proc/self/fd/{number}"
        finally:
            os.close(number)
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(text.encode())
            file.flush()
            yield file.name


def _openssl_name(suite: str) -> str:
    """OpenSSL's name of a suite of TLS 1.2: ECDHE-RSA-AES128-GCM-SHA256."""
    exchange, _, rest = suite.removeprefix("TLS_").partition("_WITH_")
    cipher = rest.replace("AES_", "AES").replace("_CBC", "").replace("POLY1305_SHA256", "POLY1305")
    return f"{exchange}-{cipher}".replace("_", "-")


def alternative_names(certificate: dict[str, Any] | None) -> set[str]:
    """The names of a verified client certificate, as ssl.SSLSocket.getpeercert() gives it."""
    names = set()
    for kind, value in (certificate or {}).get("subjectAltName", ()):
        if kind == "IP Address":
            # OpenSSL writes 0:0:0:0:0:0:0:1 for ::1. An invalid address is ignored.
            with suppress(ValueError):
                names.add(str(ipaddress.ip_address(value.strip())))
        elif kind in ("DNS", "email", "URI"):
            names.add(value)
    return names
