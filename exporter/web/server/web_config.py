"""The web configuration file, in the format of Prometheus' exporter-toolkit.

The text below a field is its description in docs/configuration.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import bcrypt
from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from exporter.config.fields import Duration, FilePath, ListOf, Model, duration_field

ClientAuthType = Literal[
    "NoClientCert",
    "RequestClientCert",
    "RequireAnyClientCert",
    "VerifyClientCertIfGiven",
    "RequireAndVerifyClientCert",
]
TlsVersion = Literal["TLS10", "TLS11", "TLS12", "TLS13"]
CipherSuite = Literal[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
]
Curve = Literal["CurveP256", "CurveP384", "CurveP521", "X25519"]

MAX_COST = 18
"""Of a bcrypt hash; each step doubles the time, and 18 takes some 15 seconds."""

_BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")


class _Model(Model):
    # pydantic's messages may be logged; the contents of this file must not be.
    model_config = ConfigDict(hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_keys_are_not_there(cls, data: Any) -> Any:
        # As in the toolkit, a key without a value is ignored.
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data


def _pem(value: Any) -> Any:
    # Checked before pydantic, whose message would show the value.
    if value is not None and not (isinstance(value, str) and "-----BEGIN " in value):
        raise ValueError("must be PEM text, -----BEGIN …: write it as a block, behind |")
    return value


Pem = Annotated[str, BeforeValidator(_pem)]


def _path(value: Any) -> Any:
    # A private key in place of its path would be shown when no such file is found.
    if isinstance(value, str) and "-----BEGIN " in value:
        raise ValueError("must be a path: PEM text stands under the key without _file")
    return value


PemFile = Annotated[FilePath, BeforeValidator(_path)]


def _password_hash(value: Any) -> Any:
    found = _BCRYPT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("must be a bcrypt hash, $2y$10$…: htpasswd -nBC 10 '' makes one")
    if not 4 <= int(found[1]) <= MAX_COST:
        raise ValueError(f"the cost of this hash is {found[1]}: write one of 04 to {MAX_COST}")
    try:
        bcrypt.hashpw(b"", b"$2b$04$" + value[7:29].encode())
    except ValueError:
        raise ValueError("the salt of this hash is damaged: make a new one") from None
    return value


PasswordHash = Annotated[str, BeforeValidator(_password_hash)]


class TlsServerConfig(_Model):
    """The certificate that is shown, and which clients may connect."""

    cert_file: PemFile | None = None
    """File (PEM) with the certificate and its chain; it or `cert` is needed."""
    key_file: PemFile | None = None
    """File (PEM) with the key, not encrypted; it or `key` is needed."""
    cert: Pem | None = Field(default=None, repr=False)
    """The certificate itself."""
    key: Pem | None = Field(default=None, repr=False)
    """The key itself."""
    client_auth_type: ClientAuthType = "NoClientCert"
    """Whether clients need a certificate. Python cannot take one without verifying it:
    `RequestClientCert`, with which nothing depends on it, asks for none; `RequireAnyClientCert`
    verifies it, and so needs a client CA. Use `RequireAndVerifyClientCert`."""
    client_ca_file: PemFile | None = None
    """File (PEM) with the certificates that may have signed those of clients."""
    client_ca: Pem | None = Field(default=None, repr=False)
    """These certificates themselves."""
    client_allowed_sans: ListOf[str] | None = None
    """Only clients whose certificate has one of these names (DNS, IP, e-mail, URI) as subject
    alternative name, exactly."""
    min_version: TlsVersion = "TLS12"
    """Least TLS version. `TLS10` and `TLS11` stand for `TLS12`: Python and OpenSSL have given them
    up."""
    max_version: TlsVersion = "TLS13"
    """Highest TLS version."""
    cipher_suites: ListOf[CipherSuite] = ()
    """Cipher suites of TLS 1.2, by their IANA names. Those of TLS 1.3 may be named but cannot be
    chosen; where only they are named, TLS 1.3 is the least version."""
    curve_preferences: ListOf[Curve] = ()
    """The elliptic curve of the key exchange: one, as Python cannot order several."""
    prefer_server_cipher_suites: bool = True
    """Whether the order of `cipher_suites` counts, or the client's."""

    @field_validator("curve_preferences", mode="before")
    @classmethod
    def _one_curve(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) > 1:
            raise ValueError("Python's TLS takes one curve, not several: keep one, or none for all")
        return value

    @field_validator("max_version")
    @classmethod
    def _is_offered(cls, value: TlsVersion) -> TlsVersion:
        if value in ("TLS10", "TLS11"):
            raise ValueError(f"Python and OpenSSL have given up {value}: write TLS12 or TLS13")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> TlsServerConfig:
        for name in ("cert", "key"):
            given = [key for key in (f"{name}_file", name) if getattr(self, key) is not None]
            if len(given) != 1:
                only = "give only one of" if given else "TLS needs"
                raise ValueError(f"{only} {name}_file {'and' if given else 'or'} {name}")
        if self.client_ca is not None and self.client_ca_file is not None:
            raise ValueError("give only one of client_ca_file and client_ca")
        has_ca = self.client_ca is not None or self.client_ca_file is not None
        if has_ca and self.client_auth_type in ("NoClientCert", "RequestClientCert"):
            raise ValueError(
                f"a client CA is of no use with client_auth_type {self.client_auth_type}:"
                " write RequireAndVerifyClientCert"
            )
        if self.verifies and not has_ca:
            raise ValueError(
                f"client_auth_type {self.client_auth_type} needs client_ca_file or client_ca:"
                " Python's TLS cannot take a certificate that it does not verify"
            )
        if self.client_allowed_sans is not None and not self.requires:
            raise ValueError(
                "client_allowed_sans needs client_auth_type RequireAndVerifyClientCert"
            )
        if self.min_version == "TLS13" and self.max_version == "TLS12":
            raise ValueError("min_version is above max_version")
        if self.cipher_suites and not self.tls12_suites and self.max_version == "TLS12":
            raise ValueError("cipher_suites names none of TLS 1.2, and max_version is TLS12")
        return self

    @property
    def requires(self) -> bool:
        """Whether a client needs a certificate."""
        return self.client_auth_type in ("RequireAnyClientCert", "RequireAndVerifyClientCert")

    @property
    def verifies(self) -> bool:
        """Whether the certificate of a client is verified."""
        return self.requires or self.client_auth_type == "VerifyClientCertIfGiven"

    @property
    def tls12_suites(self) -> tuple[str, ...]:
        """Those of `cipher_suites` that are of TLS 1.2."""
        return tuple(name for name in self.cipher_suites if "_WITH_" in name)


def _header_value(value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise ValueError("a header is one line of printable ASCII")
    return value


class Headers(_Model):
    """Headers of every answer."""

    content_security_policy: str = Field(default="", alias="Content-Security-Policy")
    """None where it is empty."""
    x_frame_options: Literal["", "deny", "sameorigin"] = Field(default="", alias="X-Frame-Options")
    """`deny` or `sameorigin`."""
    x_content_type_options: Literal["", "nosniff"] = Field(
        default="", alias="X-Content-Type-Options"
    )
    """`nosniff`, which is always sent."""
    x_xss_protection: str = Field(default="", alias="X-XSS-Protection")
    """None where it is empty."""
    strict_transport_security: str = Field(default="", alias="Strict-Transport-Security")
    """None where it is empty. With care: it binds browsers for all that is served under this host
    name."""

    _one_line = field_validator("*")(_header_value)

    @property
    def given(self) -> Mapping[str, str]:
        """Name and value of those that are set."""
        return {name: value for name, value in self.model_dump(by_alias=True).items() if value}


class HttpServerConfig(_Model):
    """What is said of HTTP."""

    http2: bool = True
    """For compatibility only: HTTP/1.1 is all that is spoken, which every client falls back to."""
    headers: Headers = Headers()
    """Headers of every answer."""


class RateLimit(_Model):
    """A ceiling for all requests but probes, whoever sends them: past it they get 429."""

    interval: Duration = duration_field("0s")
    """Average time between two requests; `0s`: no ceiling."""
    burst: int = Field(default=0, ge=0)
    """So many requests may come at once; at least 1."""

    @model_validator(mode="after")
    def _lets_something_through(self) -> RateLimit:
        if self.interval and not self.burst:
            raise ValueError("with a burst of 0 nothing would be answered: write at least burst: 1")
        return self


class WebConfig(_Model):
    """The whole file. An empty one is valid: plain HTTP for everybody."""

    tls_server_config: TlsServerConfig | None = None
    """TLS. Where it is not there, HTTP is plain. Whether it is there counts at start only; what
    stands in it, always."""
    http_server_config: HttpServerConfig = HttpServerConfig()
    """What is said of HTTP."""
    basic_auth_users: Mapping[str, PasswordHash] = Field(default={}, repr=False)
    """User names with the bcrypt hashes of their passwords. Where there is one, every path needs a
    user and password, but for the probes `/-/healthy` and `/-/ready`."""
    rate_limit: RateLimit = RateLimit()
    """A ceiling for all requests but probes. An older `promtool`, 2.42 for one, refuses
    this key."""

    @field_validator("basic_auth_users", mode="before")
    @classmethod
    def _are_users(cls, value: Any) -> Any:
        # Before a message names single users: {alice:secret} is one key without a value.
        if isinstance(value, dict):
            if not all(isinstance(name, str) for name in value):
                raise ValueError("a user name must be text: write it in quotes")
            if any(":" in name for name in value):
                raise ValueError("a user name has no colon: write a space behind it, user: hash")
        return value
