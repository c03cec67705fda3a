"""What keeps an account from signing in, or may: `check` says it, and `run` does not start."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest
import trustme
from azure.identity.aio import DefaultAzureCredential
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509 import load_pem_x509_certificate

from exporter.config import Account, loader, secret
from exporter.config.environment import TOKEN_CREDENTIALS
from exporter.config.problems import ConfigError
from exporter.config.sign_in import Auth
from tests.process import finish

PUBLIC = "https://a.westeurope.batch.azure.com"
CHINA = "https://a.chinaeast.batch.chinacloudapi.cn"
PASSWORD = b"hush, and no word of it"


@pytest.fixture(autouse=True)
def _no_variables_of_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith(("AZURE_", "MSI_", "IDENTITY_")):
            monkeypatch.delenv(name)


def written(folder: Path, settings: dict[str, Any], endpoint: str = PUBLIC) -> Path:
    """The configuration file, of one account that signs in so."""
    file = folder / "c.yaml"
    account = {"name": "a", "endpoint": endpoint, "auth": settings}
    file.write_text(json.dumps({"accounts": [account]}))
    return file


ON_AKS = (
    "on AKS, label the pod azure.workload.identity/use=true, annotate its service account with"
    " azure.workload.identity/client-id, and start the pod again"
)
APPLICATION = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c"}
OF_A_POD = {
    "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/",
    "AZURE_TENANT_ID": "t",
    "AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/tokens/azure-identity-token",
}
NO_CERTIFICATE = str(Path(__file__).parent / "conftest.py")
WORKLOAD = {"method": "workload_identity"}


@pytest.mark.parametrize(
    ("settings", "environment", "problem"),
    [
        pytest.param(
            {},
            {"AZURE_AUTHORITY_HOST": "http://login.microsoftonline.com/"},
            "AZURE_AUTHORITY_HOST is 'http://login.microsoftonline.com': it must be https",
            id="authority without TLS",
        ),
        pytest.param(
            {},
            {"AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/common"},
            "AZURE_AUTHORITY_HOST is 'https://login.microsoftonline.com/common': write the host"
            " alone, for example login.microsoftonline.com, or https:// and the host, with"
            " its port if it has one",
            id="authority with a path",
        ),
        pytest.param(
            WORKLOAD,
            {},
            "method workload_identity: the environment lacks AZURE_TENANT_ID, AZURE_CLIENT_ID and"
            f" AZURE_FEDERATED_TOKEN_FILE: {ON_AKS}; tenant_id and client_id may be set here"
            " instead",
            id="no workload identity",
        ),
        pytest.param(
            WORKLOAD,
            {**OF_A_POD},
            f"method workload_identity: the environment lacks AZURE_CLIENT_ID: {ON_AKS}; or set"
            " client_id here",
            id="service account without annotation",
        ),
        pytest.param(
            {**WORKLOAD, "tenant_id": "t", "client_id": "c"},
            {},
            f"method workload_identity: the environment lacks AZURE_FEDERATED_TOKEN_FILE: {ON_AKS}",
            id="pod without label",
        ),
        pytest.param(
            WORKLOAD,
            {**OF_A_POD, **APPLICATION, "AZURE_TENANT_ID": "https://t"},
            "AZURE_TENANT_ID is 'https://t': write the tenant's id or its domain, and no more",
            id="tenant is a URL",
        ),
        pytest.param(
            {"method": "managed_identity"},
            OF_A_POD,
            "method managed_identity uses the workload identity of this pod, and the environment"
            " lacks AZURE_CLIENT_ID: set client_id",
            id="managed identity in such a pod",
        ),
        pytest.param(
            {"method": "managed_identity"},
            {"IDENTITY_ENDPOINT": "http://127.0.0.1:1/token"},
            "IDENTITY_ENDPOINT is set without IDENTITY_HEADER: set both as Azure did, or none",
            id="App Service without its header",
        ),
        pytest.param(
            {"method": "managed_identity"},
            {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "127.0.0.1:80"},
            "AZURE_POD_IDENTITY_AUTHORITY_HOST is '127.0.0.1:80': write http:// and the host, or"
            " leave it to Azure",
            id="managed identity endpoint without http",
        ),
        pytest.param(
            {},
            {"AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredentials"},
            "AZURE_TOKEN_CREDENTIALS is 'ManagedIdentityCredentials', which is no such name: did"
            " you mean ManagedIdentityCredential?",
            id="near miss of a credential",
        ),
        pytest.param(
            {},
            {"AZURE_TOKEN_CREDENTIALS": "xyz"},
            "AZURE_TOKEN_CREDENTIALS is 'xyz', which is no such name: write one of"
            f" {', '.join(TOKEN_CREDENTIALS)}, or unset it",
            id="unknown credential",
        ),
        pytest.param(
            {},
            {**APPLICATION, "AZURE_CLIENT_CERTIFICATE_PATH": "/nowhere/it.pem"},
            "AZURE_CLIENT_CERTIFICATE_PATH: /nowhere/it.pem cannot be read: No such file or"
            " directory",
            id="certificate of the environment is missing",
        ),
        pytest.param(
            {},
            {**APPLICATION, "AZURE_CLIENT_CERTIFICATE_PATH": NO_CERTIFICATE},
            f"AZURE_CLIENT_CERTIFICATE_PATH: {NO_CERTIFICATE} is neither PEM nor PFX: export the"
            " certificate together with its private key, as PEM or PFX; if it is base64 text,"
            " decode it first",
            id="certificate of the environment is none",
        ),
        pytest.param(
            {},
            {**APPLICATION, "AZURE_CLIENT_SECRET": "", "AZURE_CLIENT_CERTIFICATE_PATH": "it.pem"},
            "AZURE_CLIENT_SECRET is empty: set it, or unset it",
            id="empty secret in the environment",
        ),
    ],
)
async def test_what_the_environment_lacks_is_said_by_check_and_by_run(
    settings: dict[str, str], environment: dict[str, str], problem: str, tmp_path: Path
) -> None:
    flag = f"--config.file={(file := written(tmp_path, settings))}"
    expected = (2, "", f"{file}:1: accounts[0].auth: {problem}\n")
    assert await asyncio.gather(
        finish("check", flag, **environment),
        finish("run", flag, "--web.listen-address=127.0.0.1:0", **environment),
    ) == [expected, expected]


@pytest.mark.parametrize(
    ("settings", "environment"),
    [
        (WORKLOAD, {**OF_A_POD, **APPLICATION}),
        ({**WORKLOAD, "client_id": "c"}, OF_A_POD),
        ({"method": "managed_identity"}, {**OF_A_POD, **APPLICATION}),
        ({"method": "managed_identity", "client_id": "c"}, OF_A_POD),
        ({"method": "managed_identity"}, {}),
        ({"method": "azure_cli"}, {"AZURE_AUTHORITY_HOST": "http://not.used/"}),
        ({}, {"AZURE_TOKEN_CREDENTIALS": "azureCLIcredential"}),
        ({}, {**APPLICATION, "AZURE_CLIENT_SECRET": "s", "AZURE_CLIENT_CERTIFICATE_PATH": "/no"}),
        ({}, {"AZURE_CLIENT_CERTIFICATE_PATH": "/not/used"}),
        ({}, {**APPLICATION, "AZURE_CLIENT_SECRET": ""}),
        ({}, {}),
    ],
)
def test_an_environment_that_suffices_passes_without_a_word(
    settings: dict[str, str],
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "token").write_text("a token")
    for name, value in environment.items():
        is_token = name == "AZURE_FEDERATED_TOKEN_FILE"
        monkeypatch.setenv(name, str(tmp_path / "token") if is_token else value)
    loader.load(written(tmp_path, settings))
    assert not caplog.messages


@pytest.mark.parametrize(
    ("environment", "warning"),
    [
        (
            {"SSL_CERT_FILE": "none.pem"},
            "SSL_CERT_FILE: none.pem cannot be read: No such file or directory; without it no"
            " certificate is trusted: put the file there, or unset SSL_CERT_FILE",
        ),
        (
            {"SSL_CERT_FILE": __file__},
            f"SSL_CERT_FILE: {__file__} holds no certificate in PEM; without it no certificate is"
            " trusted: put the file there, or unset SSL_CERT_FILE",
        ),
        (
            {**OF_A_POD, **APPLICATION, "AZURE_FEDERATED_TOKEN_FILE": "none"},
            "AZURE_FEDERATED_TOKEN_FILE: none cannot be read: No such file or directory; without it"
            " there are no tokens: put the file there",
        ),
    ],
    ids=["missing bundle", "no bundle", "federated token"],
)
async def test_a_file_of_the_environment_that_may_come_is_a_warning(
    environment: dict[str, str], warning: str, tmp_path: Path
) -> None:
    file = written(tmp_path, WORKLOAD if len(environment) > 1 else {})
    assert await finish("check", f"--config.file={file}", **environment) == (
        0,
        f"{file}: valid, 1 account(s), 1 rule(s), 1 warning(s)\n",
        f"warning: {warning}\n",
    )


@pytest.mark.parametrize(
    ("settings", "environment", "warning"),
    [
        pytest.param(
            {"scope": "https://batch.core.windows.net//.default"},
            {},
            "accounts[0].auth.scope: https://batch.core.windows.net//.default is of the cloud"
            " public, endpoint of China (21Vianet): leave it out",
            id="scope",
        ),
        pytest.param(
            {},
            {"AZURE_AUTHORITY_HOST": "login.microsoftonline.us"},
            "accounts[0].endpoint: of the cloud China (21Vianet), but AZURE_AUTHORITY_HOST is"
            " login.microsoftonline.us, of US Government: unset it, or set login.chinacloudapi.cn",
            id="authority",
        ),
    ],
)
async def test_a_setting_of_another_cloud_is_a_warning(
    settings: dict[str, str], environment: dict[str, str], warning: str, tmp_path: Path
) -> None:
    file = written(tmp_path, settings, CHINA)
    assert await finish("check", f"--config.file={file}", **environment) == (
        0,
        f"{file}: valid, 1 account(s), 1 rule(s), 1 warning(s)\n",
        f"warning: {file}:1: {warning}\n",
    )


async def test_the_credentials_are_those_that_azure_identity_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "unknown")
    with pytest.raises(ValueError, match="AZURE_TOKEN_CREDENTIALS") as caught:
        DefaultAzureCredential()
    known = set(re.findall(r"\w+", str(caught.value)))
    assert known >= {name.lower() for name in TOKEN_CREDENTIALS}
    for name in TOKEN_CREDENTIALS:
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", name)
        await DefaultAzureCredential().close()


# Certificates


def write_forms(folder: Path, *times: dt.datetime) -> None:
    """A certificate with its key, in several forms, with its password and another."""
    valid = dict(zip(("not_before", "not_after"), times, strict=False))
    issued = trustme.CA().issue_cert("exporter", key_type=trustme.KeyType.RSA, **valid)
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    certificate = issued.cert_chain_pems[0].bytes()
    lock = BestAvailableEncryption(PASSWORD)
    opened = load_pem_x509_certificate(certificate)
    pfx = pkcs12.serialize_key_and_certificates(None, key, opened, None, lock)  # type: ignore[arg-type]
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
    (folder / "plain.pem").write_bytes(issued.private_key_pem.bytes() + certificate)
    (folder / "locked.pem").write_bytes(locked + certificate)
    (folder / "locked.pfx").write_bytes(pfx)
    (folder / "password").write_bytes(PASSWORD + b"\r\n")
    (folder / "wrong").write_bytes(b"wrong")
    for file in folder.iterdir():
        file.chmod(0o600)


def of_certificate(file: str, password: str = "") -> dict[str, str]:
    settings = {"method": "client_certificate", "tenant_id": "t", "client_id": "c"}
    settings["certificate_file"] = file
    return {**settings, "certificate_password_file": password} if password else settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    write_forms(made)
    return made


@pytest.mark.parametrize("name", ["locked.pfx", "locked.pem", "plain.pem"])
async def test_a_certificate_with_a_password_passes_and_is_built(name: str, folder: Path) -> None:
    file = written(folder, of_certificate(name, "password"))
    assert await finish("check", f"--config.file={file}") == (
        0,
        f"{file}: valid, 1 account(s), 1 rule(s)\n",
        "",
    )
    (account,) = loader.load(file).accounts
    assert secret.read_certificate(account.auth).not_after > dt.datetime.now(dt.UTC)


@pytest.mark.parametrize(
    ("name", "password", "answer"),
    [
        pytest.param(
            *("locked.pem", ""),
            "certificate_file: {}/locked.pem is encrypted: name its password in"
            " certificate_password_file",
            id="PEM without",
        ),
        pytest.param(
            *("locked.pfx", ""),
            "certificate_file: {}/locked.pfx is encrypted: name its password in"
            " certificate_password_file",
            id="PFX without",
        ),
        pytest.param(
            *("locked.pem", "wrong"),
            "certificate_password_file: the password does not open {}/locked.pem",
            id="PEM with a wrong one",
        ),
        pytest.param(
            *("locked.pfx", "wrong"),
            "certificate_password_file: the password does not open {}/locked.pfx",
            id="PFX with a wrong one",
        ),
        pytest.param(
            *("locked.pfx", "none"),
            "certificate_password_file: {}/none cannot be read: No such file or directory",
            id="no such file",
        ),
    ],
)
async def test_a_certificate_that_its_password_does_not_open_is_said_by_check_and_by_run(
    name: str, password: str, answer: str, folder: Path
) -> None:
    flag = f"--config.file={(file := written(folder, of_certificate(name, password)))}"
    expected = (2, "", f"{file}:1: accounts[0].auth.{answer.format(folder)}\n")
    assert await asyncio.gather(
        finish("check", flag), finish("run", flag, "--web.listen-address=127.0.0.1:0")
    ) == [expected, expected]


def test_the_password_may_be_in_a_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**of_certificate("locked.pfx"), "certificate_password_env": "HUSH"}
    file = written(folder, settings)
    monkeypatch.setenv("HUSH", PASSWORD.decode())
    loader.load(file)
    monkeypatch.setenv("HUSH", "another secret")
    with pytest.raises(ConfigError) as caught:
        loader.load(file)
    assert str(caught.value) == (
        f"{file}:1: accounts[0].auth.certificate_password_env: the password does not open"
        f" {folder}/locked.pfx"
    )


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        ("2020-01-01 00:00Z", "2020-06-30 12:05Z", "expired on 2020-06-30 12:05"),
        ("2399-01-01 00:00Z", "2400-01-01 00:00Z", "is not valid before 2399-01-01 00:00"),
    ],
    ids=["expired", "not yet valid"],
)
def test_a_certificate_out_of_its_time_is_a_warning_with_its_date(
    start: str,
    end: str,
    text: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    times = map(dt.datetime.fromisoformat, (start, end))
    write_forms(tmp_path, *times)
    file = written(tmp_path, of_certificate("plain.pem"))
    loader.load(file)
    assert caplog.messages == [
        f"{file}:1: accounts[0].auth.certificate_file: {tmp_path}/plain.pem {text} UTC:"
        " put the one that is valid there"
    ]


def test_the_digest_changes_with_the_certificate_and_with_its_password(tmp_path: Path) -> None:
    certificate, password = tmp_path / "it.pfx", tmp_path / "password"
    settings = Auth(
        method="client_certificate",
        tenant_id="t",
        client_id="c",
        certificate_file=certificate,
        certificate_password_file=password,
    )
    seen = set()
    for contents in ((b"1", b"2"), (b"2", b"2"), (b"2", b"1"), (b"2", b"1 "), (b"21", b"1")):
        certificate.write_bytes(contents[0])
        password.write_bytes(contents[1])
        seen.add(secret.digest(settings))
        assert secret.digest(settings) in seen
    assert len(seen) == 5


def test_everybody_who_can_read_a_password_is_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = written(folder, of_certificate("locked.pfx", "password"))
    (folder / "password").chmod(0o644)
    with caplog.at_level(logging.WARNING):
        loader.load(file)
    (folder / "password").chmod(0o600)
    assert caplog.messages == [
        f"every user of this machine can read the secret in {folder}/password: chmod 600 it"
    ]


def test_a_certificate_and_its_password_stand_in_no_repr(folder: Path) -> None:
    settings = of_certificate(f"{folder}/locked.pem", f"{folder}/password")
    account = Account.model_validate_json(
        json.dumps({"name": "a", "endpoint": PUBLIC, "auth": settings})
    )
    shown = f"{account!r} {secret.read_certificate(account.auth)!r}"
    assert PASSWORD.decode() not in shown
    assert "PRIVATE KEY" not in shown
