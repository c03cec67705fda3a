"""Microsoft Entra ID's client credentials grant: registered applications, and who is refused.

Sources: learn.microsoft.com, "OAuth 2.0 client credentials flow on the Microsoft identity
platform" and "Certificate credentials for application authentication".
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from exporter.simulator.entra_errors import EXPIRED, NOT_REGISTERED, WRONG_SIGNATURE, EntraError
from exporter.simulator.signatures import BATCH_AUDIENCE

TENANT_ID = "00000000-0000-0000-0000-000000007e4a"
CLIENT_ID = "00000000-0000-0000-0000-00000000c11e"
CLIENT_SECRET = "simulated-client-secret"  # noqa: S105 - it opens nothing

RESOURCES = frozenset(
    {
        BATCH_AUDIENCE,
        BATCH_AUDIENCE.rstrip("/"),
        "https://management.azure.com",
        "https://management.azure.com/",
    }
)
"""The resources that every tenant knows. Batch refuses the second one's tokens."""

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_TOLERANCE = timedelta(minutes=5)


@dataclass(frozen=True)
class FederatedCredential:
    """Whose tokens an application takes in place of a secret: workload identity."""

    issuer: str = "https://issuer.example/"
    subject: str = "system:serviceaccount:monitoring:azure-batch-exporter"
    audience: str = "api://AzureADTokenExchange"

    def token(self, now: datetime, lifetime: timedelta = timedelta(hours=1)) -> str:
        """A token of this issuer. Its signature is none: the simulator does not verify it."""
        claims = {
            "iss": self.issuer,
            "sub": self.subject,
            "aud": [self.audience],
            "nbf": int(now.timestamp()),
            "exp": int((now + lifetime).timestamp()),
        }
        parts = ({"alg": "RS256", "kid": "simulated"}, claims)
        encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()) for part in parts)
        return ".".join([*(text.rstrip(b"=").decode() for text in encoded), "c2ltdWxhdGVk"])


@dataclass
class Application:
    """A registered application. Everything may be changed while it is served."""

    tenant_id: str = TENANT_ID
    client_id: str = CLIENT_ID
    secrets: list[str] = field(default_factory=lambda: [CLIENT_SECRET])
    expired_secrets: list[str] = field(default_factory=list)
    certificates: list[bytes] = field(default_factory=list)
    """In PEM; a private key beside the certificate is ignored. One that has expired is refused."""
    federated: list[FederatedCredential] = field(default_factory=lambda: [FederatedCredential()])


def values_of(tenant: str, form: Mapping[str, str]) -> dict[str, str]:
    """What a request says, for the texts of errors."""
    header, claims = _unverified(form.get("client_assertion", ""))
    return {
        "tenant": tenant,
        "client": form.get("client_id", ""),
        "grant": form.get("grant_type", ""),
        "scope": form.get("scope", ""),
        "resource": form.get("scope", "").removesuffix("/.default"),
        "issuer": str(claims.get("iss", "")),
        "subject": str(claims.get("sub", "")),
        "audience": ", ".join(_audiences(claims)),
        "thumbprint": str(header.get("x5t#S256") or header.get("x5t", "")),
        "reason": EXPIRED,
    }


def check(
    applications: Iterable[Application],
    tenant: str,
    form: Mapping[str, str],
    token_url: str,
    now: datetime,
) -> str:
    """The resource that the token is for; EntraError where it is refused. `now`: aware."""
    for name in ("grant_type", "client_id", "scope"):
        if not form.get(name):
            raise EntraError(900144, missing=name)
    if form["grant_type"] != "client_credentials":
        raise EntraError(70003)
    in_tenant = [each for each in applications if _same(each.tenant_id, tenant)]
    if not in_tenant:
        raise EntraError(90002)
    application = next((a for a in in_tenant if _same(a.client_id, form["client_id"])), None)
    if application is None:
        raise EntraError(700016)
    if "client_assertion" in form:
        _check_assertion(application, form, token_url, now)
    elif "client_secret" in form:
        _check_secret(application, form["client_secret"])
    else:
        raise EntraError(7000216)
    return _resource(form["scope"])


def _same(one: str, other: str) -> bool:
    return one.lower() == other.lower()


def _resource(scope: str) -> str:
    if len(scope.split()) > 1:
        raise EntraError(70011)
    if not scope.endswith("/.default"):
        raise EntraError(1002012)
    resource = scope.removesuffix("/.default")
    if resource not in RESOURCES:
        raise EntraError(500011)
    return resource


def _check_secret(application: Application, secret: str) -> None:
    if secret in application.expired_secrets:
        raise EntraError(7000222)
    if secret not in application.secrets:
        raise EntraError(7000215)


def _check_assertion(
    application: Application, form: Mapping[str, str], token_url: str, now: datetime
) -> None:
    assertion = form["client_assertion"]
    header, claims = _unverified(assertion)
    if not header or form.get("client_assertion_type") != _ASSERTION_TYPE:
        raise EntraError(50027)
    if "x5t" in header or "x5t#S256" in header:
        _check_signature(application, assertion, header, now)
        _check_time(claims, now)
        if {claims.get("iss"), claims.get("sub")} != {form["client_id"]}:
            raise EntraError(700021)
        if token_url not in _audiences(claims):
            raise EntraError(700023)
    else:
        _check_federation(application, claims)
        _check_time(claims, now)


def _check_signature(
    application: Application, assertion: str, header: Mapping[str, Any], now: datetime
) -> None:
    registered = (x509.load_pem_x509_certificate(pem) for pem in application.certificates)
    certificate = next((each for each in registered if _is_named(header, each)), None)
    if certificate is None:
        raise EntraError(700027, reason=NOT_REGISTERED)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise EntraError(700027, reason=EXPIRED)
    signed, _, signature = assertion.rpartition(".")
    sha256, key = hashes.SHA256(), certificate.public_key()
    paddings = {
        "RS256": padding.PKCS1v15(),
        "PS256": padding.PSS(padding.MGF1(sha256), sha256.digest_size),
    }
    algorithm = header.get("alg")
    if algorithm not in paddings or not isinstance(key, rsa.RSAPublicKey):
        raise EntraError(50027)
    try:
        key.verify(_decoded(signature), signed.encode(), paddings[algorithm], sha256)
    except (InvalidSignature, ValueError) as error:
        raise EntraError(700027, reason=WRONG_SIGNATURE) from error


def _is_named(header: Mapping[str, Any], certificate: x509.Certificate) -> bool:
    thumbprints = (("x5t#S256", hashes.SHA256()), ("x5t", hashes.SHA1()))  # noqa: S303 - a name
    return all(
        _as_bytes(header[name]) == certificate.fingerprint(hash_)
        for name, hash_ in thumbprints
        if name in header
    )


def _check_federation(application: Application, claims: Mapping[str, Any]) -> None:
    """Like Entra, but without the issuer's keys: the signature is not verified."""
    left = application.federated
    if not left:
        raise EntraError(70021)
    left = [each for each in left if each.issuer == claims.get("iss")]
    if not left:
        raise EntraError(700211)
    left = [each for each in left if each.subject == claims.get("sub")]
    if not left:
        raise EntraError(700213)
    if not any(each.audience in _audiences(claims) for each in left):
        raise EntraError(700212)


def _check_time(claims: Mapping[str, Any], now: datetime) -> None:
    try:
        end = datetime.fromtimestamp(claims["exp"], UTC)
        begin = datetime.fromtimestamp(claims.get("nbf", 0), UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        raise EntraError(50027) from error
    if not begin - _TOLERANCE <= now <= end + _TOLERANCE:
        raise EntraError(700024, time=now.isoformat(), begin=begin.isoformat(), end=end.isoformat())


def _audiences(claims: Mapping[str, Any]) -> list[str]:
    given = claims.get("aud", [])
    return [str(each) for each in (given if isinstance(given, list) else [given])]


def _unverified(assertion: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a JWT; both are empty where it is none."""
    parts = assertion.split(".")
    try:
        header, claims = (json.loads(_decoded(part)) for part in parts[:2])
    except (ValueError, RecursionError):
        return {}, {}
    if len(parts) != 3 or not isinstance(header, dict) or not isinstance(claims, dict):
        return {}, {}
    return header, claims


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))


def _as_bytes(text: object) -> bytes:
    try:
        return _decoded(str(text))
    except (binascii.Error, ValueError):
        return b""
