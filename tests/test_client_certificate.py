"""Client certificates: each form that operators have, and what each mistake is answered with."""

from __future__ import annotations

import base64
import datetime as dt
import shutil
import subprocess
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from azure.identity import CertificateCredential
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import NameOID

from exporter.config.client_certificate import ClientCertificate, WrongPassword, parse

START = dt.datetime(2026, 1, 1, 12, 30, tzinfo=dt.UTC)
END = START + dt.timedelta(days=365)
PASSWORD = "p\u00e4ss w\u00f6rd".encode()
PKCS8 = PrivateFormat.PKCS8
EXPORT = "export the certificate together with its private key, as PEM or PFX"


@cache
def key_of(owner: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def issue(owner: str, issuer: str, key: Any = None, end: dt.datetime = END) -> x509.Certificate:
    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    return (
        x509.CertificateBuilder()
        .subject_name(named(owner))
        .issuer_name(named(issuer))
        .public_key((key or key_of(owner)).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(START)
        .not_valid_after(end)
        .sign(key_of(issuer), hashes.SHA256())
    )


KEY = key_of("exporter")
LEAF = issue("exporter", "middle")
MIDDLE = issue("middle", "root")
ROOT = issue("root", "root")
CHAIN = (LEAF, MIDDLE, ROOT)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
THUMBPRINT = LEAF.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303 - a name, not a protection


def pem_key(key: Any = KEY, form: PrivateFormat = PKCS8, encryption: Any = None) -> bytes:
    written: bytes = key.private_bytes(Encoding.PEM, form, encryption or NoEncryption())
    return written


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def pfx(
    encryption: KeySerializationEncryption | None = None,
    key: Any = KEY,
    certificate: x509.Certificate | None = LEAF,
    others: tuple[x509.Certificate, ...] = (MIDDLE, ROOT),
) -> bytes:
    return pkcs12.serialize_key_and_certificates(
        b"exporter", key, certificate, others, encryption or NoEncryption()
    )


def of_kind(algorithm: pkcs12.PBES, mac: hashes.HashAlgorithm) -> KeySerializationEncryption:
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(5)
    return builder.key_cert_algorithm(algorithm).hmac_hash(mac).build(PASSWORD)


ENCRYPTED = BestAvailableEncryption(PASSWORD)
AES256 = of_kind(pkcs12.PBES.PBESv2SHA256AndAES256CBC, hashes.SHA256())
LEGACY = of_kind(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC, hashes.SHA1())  # noqa: S303
TRADITIONAL = pem_key(form=PrivateFormat.TraditionalOpenSSL, encryption=ENCRYPTED)


def check(found: ClientCertificate) -> None:
    """It is the exporter's certificate, its key and chain: azure-identity takes it so."""
    assert (found.thumbprint, found.not_before, found.not_after) == (THUMBPRINT, START, END)
    first, *others = x509.load_pem_x509_certificates(found.pem)
    assert (first, set(others)) == (LEAF, {MIDDLE, ROOT})
    key = load_pem_private_key(found.pem, None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.private_numbers() == KEY.private_numbers()
    CertificateCredential("t", "c", certificate_data=found.pem).close()
    assert b"PRIVATE" not in repr(found).encode()


@pytest.mark.parametrize(
    ("data", "password"),
    [
        (pem_key() + pem(*CHAIN), b""),
        (pem(*CHAIN) + pem_key(), b""),
        ((pem_key() + pem(*CHAIN)).replace(b"\n", b"\r\n"), b""),
        (b"Bag Attributes\n  localKeyID: 01\n" + pem(*CHAIN) + b"subject=x\n" + pem_key(), b""),
        (pem_key(form=PrivateFormat.TraditionalOpenSSL) + pem(*CHAIN), b""),
        (pem_key(encryption=ENCRYPTED) + pem(*CHAIN), PASSWORD),
        (pem(*CHAIN) + pem_key(encryption=ENCRYPTED), PASSWORD),
        (TRADITIONAL + pem(*CHAIN), PASSWORD),
        ((TRADITIONAL + pem(*CHAIN)).replace(b"\n", b"\r\n"), PASSWORD),
        (pem_key() + pem(*CHAIN), b"not needed"),
        (pfx(), b""),
        (pfx(), b"not needed"),
        (pfx(), b"not needed, and not UTF-8: \xff"),
        (pfx(AES256), PASSWORD),
        (pfx(LEGACY), PASSWORD),
        (pfx(others=(ROOT, MIDDLE)), b""),
    ],
    ids=[
        "PEM",
        "PEM, certificate first",
        "PEM, CRLF",
        "PEM, text between",
        "PEM, OpenSSL's form",
        "PEM, encrypted",
        "PEM, encrypted, certificate first",
        "PEM, encrypted in OpenSSL's form",
        "PEM, encrypted in OpenSSL's form, CRLF",
        "PEM, password not needed",
        "PFX",
        "PFX, password not needed",
        "PFX, password not needed and no text",
        "PFX, AES256",
        "PFX, legacy",
        "PFX, chain in another order",
    ],
)
def test_each_form_is_read(data: bytes, password: bytes) -> None:
    check(parse(data, password, "it.pem"))


def test_a_chain_may_stand_in_any_order() -> None:
    for order in permutations(CHAIN):
        check(parse(pem(*order[:2]) + pem_key() + pem(order[2]), b"", "it.pem"))


@pytest.mark.parametrize(
    "options",
    [(), ("-keypbe", "NONE", "-certpbe", "NONE", "-nomac")],
    ids=["encrypted with it", "not encrypted"],
)
@pytest.mark.parametrize("password", [b"", b"not needed"])
def test_a_pfx_of_openssl_with_an_empty_password_is_read(
    options: tuple[str, ...], password: bytes, tmp_path: Path
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    file = tmp_path / "it.pem"
    file.write_bytes(pem_key() + pem(*CHAIN))
    command = [openssl, "pkcs12", "-export", "-in", file, "-passout", "pass:", *options]
    made = subprocess.run(command, capture_output=True, check=True)
    check(parse(made.stdout, password, "it.pfx"))


def test_of_two_certificates_of_the_key_the_newer_is_taken() -> None:
    newer = issue("exporter", "middle", end=END + dt.timedelta(days=365))
    for order in permutations((LEAF, newer, MIDDLE)):
        found = parse(pem_key() + pem(*order), b"", "it.pem")
        assert found.not_after == END + dt.timedelta(days=365)
        assert x509.load_pem_x509_certificates(found.pem) == [newer, MIDDLE]


def refusal(data: bytes, password: bytes, *password_key: str) -> tuple[type[ValueError], str]:
    """The kind and the text of the error that is the answer to a file named `it`."""
    with pytest.raises(ValueError, match="it") as caught:
        parse(data, password, "it", *password_key)
    return caught.type, str(caught.value)


def cut(block: bytes) -> bytes:
    """The PEM block with half of its lines."""
    lines = block.splitlines()
    return b"\n".join([lines[0], *lines[1 : len(lines) // 2], lines[-1], b""])


NEITHER = f"it is neither PEM nor PFX: {EXPORT}; if it is base64 text, decode it first"
NOT_RSA = (
    "it has a private key that is not RSA: Microsoft Entra ID takes RSA only, make a certificate"
    " with an RSA key"
)
NO_MATCH = f"in it key and certificate do not belong together: {EXPORT}"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "it is empty"),
        (b" \r\n", "it is empty"),
        (b"junk", NEITHER),
        (b"0\x82\x01\x00junk", NEITHER),
        (b"\xff\xfe-\x00-\x00-\x00-\x00-\x00B\x00E\x00", NEITHER),
        (LEAF.public_bytes(Encoding.DER), NEITHER),
        (base64.b64encode(pfx()), NEITHER),
        (pem(*CHAIN), f"it has no private key: {EXPORT}"),
        (b"-----BEGIN", f"it has no private key: {EXPORT}"),
        (pem_key(), f"it has no certificate: {EXPORT}"),
        (pem_key() + cut(pem(LEAF)), f"it has a damaged certificate: {EXPORT}"),
        (cut(pem_key()) + pem(LEAF), f"it has a damaged private key: {EXPORT}"),
        (pem_key(key_of("other")) + pem(*CHAIN), NO_MATCH),
        (pem_key() + pem(MIDDLE, ROOT), NO_MATCH),
        (pem_key() + pem(issue("ec", "middle", EC_KEY)), NO_MATCH),
        (pem_key(EC_KEY) + pem(issue("ec", "middle", EC_KEY)), NOT_RSA),
        (pfx(key=None), f"it has no private key: {EXPORT}"),
        (pfx(certificate=None, others=()), f"it has no certificate: {EXPORT}"),
        (pfx(key=EC_KEY, certificate=issue("ec", "middle", EC_KEY)), NOT_RSA),
        (pfx()[:500], f"it is damaged: {EXPORT}"),
    ],
    ids=[
        "empty",
        "white space",
        "junk",
        "junk like DER",
        "UTF-16",
        "DER",
        "base64 of a PFX",
        "no key",
        "one line",
        "no certificate",
        "damaged certificate",
        "damaged key",
        "key of another",
        "certificate of another",
        "EC certificate",
        "EC key",
        "PFX without key",
        "PFX without certificate",
        "PFX with EC key",
        "half a PFX",
    ],
)
@pytest.mark.parametrize("password", [b"", PASSWORD])
def test_each_mistake_has_its_answer(data: bytes, text: str, password: bytes) -> None:
    assert refusal(data, password) == (ValueError, text)


NEEDS_ONE = [
    pytest.param(pem_key(encryption=ENCRYPTED) + pem(*CHAIN), id="PEM"),
    pytest.param(TRADITIONAL + pem(*CHAIN), id="PEM in OpenSSL's form"),
    pytest.param(pfx(AES256), id="PFX, AES256"),
    pytest.param(pfx(LEGACY), id="PFX, legacy"),
]


@pytest.mark.parametrize("data", NEEDS_ONE)
@pytest.mark.parametrize("key", ["certificate_password_file", "AZURE_CLIENT_CERTIFICATE_PASSWORD"])
def test_a_password_that_lacks_is_asked_for_by_the_key_to_set(data: bytes, key: str) -> None:
    text = f"it is encrypted: name its password in {key}"
    assert refusal(data, b"", key) == (ValueError, text)


@pytest.mark.parametrize("data", NEEDS_ONE)
def test_a_wrong_password_is_not_told(data: bytes) -> None:
    for password in (b"hush", b"not UTF-8: \xff", b"long" * 500):
        assert refusal(data, password) == (WrongPassword, "the password does not open it")


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (START - dt.timedelta(seconds=1), "is not valid before 2026-01-01 12:30 UTC"),
        (START, ""),
        (END, ""),
        (END + dt.timedelta(seconds=1), "expired on 2027-01-01 12:30 UTC"),
    ],
)
def test_a_certificate_out_of_its_time_says_its_date(now: dt.datetime, text: str) -> None:
    assert parse(pem_key() + pem(LEAF), b"", "it").not_valid(now) == text
