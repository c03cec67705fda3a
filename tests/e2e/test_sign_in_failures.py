"""What is said of each way in which signing in fails: one line, one cause, one cure."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from exporter.batch.credentials import SignIn
from exporter.batch.errors import CredentialError
from exporter.batch.token_renewal import Tokens
from exporter.cli.certificate import write_client_certificate
from exporter.config import loader
from exporter.diagnosis.sign_in_causes import CAUSES, explain
from tests.e2e.test_sign_in import Played, environment, played
from tests.process import free_ports


async def failure_of(made: Played, within: float = 30.0) -> CredentialError:
    """Why there is no token, with cause and cure."""
    (account,) = loader.load(made.write_config()).accounts
    sign_in = SignIn(account.auth, account.scope, account.authority)

    def tell(error: CredentialError) -> None:
        explain(account.auth.method, error)

    tokens = Tokens(sign_in.get_token, within, sign_in.timeout_code, tell)
    with pytest.raises(CredentialError) as caught:
        await tokens.get()
    await tokens.close()
    return caught.value


APPLICATION = "00000000-0000-0000-0000-00000000c11e"
TENANT = "00000000-0000-0000-0000-000000007e4a"


@pytest.mark.parametrize(
    ("method", "failure", "text", "cause", "cure"),
    [
        (
            "client_secret",
            "secret-wrong",
            "AADSTS7000215: Invalid client secret provided.",
            "client_secret",
            "give the secret's value",
        ),
        (
            "client_secret",
            "secret-expired",
            "AADSTS7000222: The provided client secret keys",
            "client_secret",
            "make a new secret",
        ),
        (
            "client_secret",
            "application-unknown",
            f"AADSTS700016: Application with identifier '{APPLICATION}'",
            "client_id",
            "set client_id",
        ),
        (
            "client_secret",
            "application-disabled",
            f"AADSTS7000112: Application '{APPLICATION}' is disabled.",
            "client_id",
            "set client_id",
        ),
        (
            "client_secret",
            "tenant-unknown",
            f"AADSTS90002: Tenant '{TENANT}' not found.",
            "tenant",
            "set tenant_id",
        ),
        (
            "client_certificate",
            "certificate-expired",
            "AADSTS700027: The certificate with identifier",
            "certificate",
            "upload the certificate",
        ),
        (
            "client_certificate",
            "assertion-expired",
            "AADSTS700024: Client assertion is not within its valid time range.",
            "clock",
            "set this machine's clock right",
        ),
        (
            "workload_identity",
            "assertion-expired",
            "AADSTS700024: Client assertion is not within its valid time range.",
            "clock",
            "set this machine's clock right",
        ),
        (
            "workload_identity",
            "federation-no-match",
            "AADSTS70021: No matching federated identity record",
            "federation",
            "add a federated credential",
        ),
        (
            "workload_identity",
            "federation-issuer",
            "AADSTS700211: No matching federated identity record",
            "federation",
            "set the federated credential's issuer",
        ),
        (
            "workload_identity",
            "federation-subject",
            "AADSTS700213: No matching federated identity record",
            "federation",
            "set the federated credential's subject",
        ),
        (
            "workload_identity",
            "federation-audience",
            "AADSTS700212: No matching federated identity record",
            "federation",
            "set the federated credential's audience",
        ),
        (
            "client_secret",
            "conditional-access",
            "AADSTS53003: Access has been blocked by Conditional Access policies.",
            "conditional_access",
            "ask the administrators",
        ),
        (
            "client_secret",
            "risk-blocked",
            "AADSTS530034: ",
            "blocked",
            "ask the administrators",
        ),
        (
            "client_secret",
            "principal-missing",
            f"AADSTS7000229: The client application {APPLICATION} is missing",
            "service_principal",
            "run az ad sp create",
        ),
        (
            "client_secret",
            "user-unknown",
            "AADSTS50034: The account does not exist",
            "user",
            "run az login again",
        ),
        (
            "client_secret",
            "resource-unknown",
            "AADSTS500011: The resource principal named https://batch.core.windows.net/",
            "scope",
            "leave auth.scope out",
        ),
        (
            "client_secret",
            "throttled",
            "AADSTS90055: There are too many incoming requests.",
            "authority_throttled",
            "usually transient.",
        ),
        (
            "client_secret",
            "server-error",
            "AADSTS50000: The sign-in service could not issue the token.",
            "authority_unavailable",
            "usually transient.",
        ),
        (
            "client_secret",
            "html",
            "HTTP 200: Unexpected response from Microsoft Entra ID",
            "authority_invalid",
            "see what answers",
        ),
        (
            "client_secret",
            "garbage",
            "HTTP 200: ",
            "authority_invalid",
            "see what answers",
        ),
        (
            "client_secret",
            "blank-token",
            "the answer holds no usable token, it is empty or has odd characters",
            "authority_invalid",
            "see what answers",
        ),
        (
            "managed_identity",
            "blank-token",
            "the answer holds no usable token, it is empty or has odd characters",
            "identity_endpoint",
            "see what answers",
        ),
        (
            "client_secret",
            "reset",
            "no answer of the authority: ",
            "authority_connection",
            "let this machine reach",
        ),
        (
            "managed_identity",
            "no-identity",
            "HTTP 400: Identity not found",
            "identity_not_assigned",
            "assign a managed identity",
        ),
        (
            "managed_identity",
            "not-found",
            "HTTP 404: ",
            "identity_endpoint",
            "usually transient.",
        ),
        (
            "managed_identity",
            "throttled",
            "HTTP 429: Too many requests",
            "identity_throttled",
            "usually transient.",
        ),
        (
            "managed_identity",
            "server-error",
            "HTTP 500: ",
            "identity_unavailable",
            "usually transient.",
        ),
        (
            "managed_identity",
            "html",
            'HTTP 200: Unexpected content type "text/html"',
            "identity_endpoint",
            "see what answers",
        ),
        (
            "app_service",
            "header-refused",
            "HTTP 401: ",
            "identity_endpoint",
            "see that IDENTITY_HEADER",
        ),
        (
            "default",
            "no-identity",
            "tried environment: not set: AZURE_TENANT_ID and AZURE_CLIENT_ID with"
            " AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH; workload_identity: not set:"
            " AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_FEDERATED_TOKEN_FILE; managed_identity: HTTP"
            " 400: Identity not found; azure_cli: the program az is not on PATH",
            "identity_not_assigned",
            "assign a managed identity",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and re.fullmatch(r"[a-z_-]+", value) else "",
)
async def test_what_an_issuer_answers(
    method: str,
    failure: str,
    text: str,
    cause: str,
    cure: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with played(method, tmp_path, monkeypatch) as made:
        monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))
        made.identity.failures.set(failure)
        error = await failure_of(made)
    assert str(error).startswith(text)
    assert "\n" not in str(error)
    assert "Trace ID" not in f"{error}{error.cure}"
    assert (error.cause, error.cure[: len(cure)]) == (cause, cure)
    assert error.trace.startswith("Trace ID: ") == ("AADSTS" in str(error))


@asynccontextmanager
async def proxy(answer: bytes) -> AsyncIterator[str]:
    """A proxy that answers every request alike."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


async def no_name(made: Played) -> None:
    made.environment["AZURE_AUTHORITY_HOST"] = "https://authority.invalid"


async def no_trust(made: Played) -> None:
    made.environment["SSL_CERT_FILE"] = str(made.folder / "no-authorities.pem")


async def nobody(made: Played) -> None:
    (port,) = free_ports(1)
    made.environment["AZURE_AUTHORITY_HOST"] = f"https://127.0.0.1:{port}"


async def no_proxy(made: Played) -> None:
    (port,) = free_ports(1)
    made.environment["HTTPS_PROXY"] = f"http://user:hidden-word@127.0.0.1:{port}"


async def no_endpoint(made: Played) -> None:
    (port,) = free_ports(1)
    made.environment["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = f"http://127.0.0.1:{port}"


async def no_program(made: Played) -> None:
    made.environment["PATH"] = str(made.folder)


async def logged_out(made: Played) -> None:
    made.refuse()


async def broken(made: Played) -> None:
    made.break_down("reset")


async def nothing(made: Played) -> None:
    made.environment["AZURE_TOKEN_CREDENTIALS"] = "EnvironmentCredential"


async def no_token_file(made: Played) -> None:
    (made.folder / "token").unlink()


async def expired_certificate(made: Played) -> None:
    pem, pfx = write_client_certificate(made.folder, dt.timedelta(days=-2))
    pfx.chmod(0o600)
    made.identity.application.certificates[:] = [pem.read_bytes()]


async def unknown_certificate(made: Played) -> None:
    made.identity.application.certificates.clear()


@pytest.mark.parametrize(
    ("method", "spoil", "text", "cause", "cure"),
    [
        (
            "client_secret",
            no_name,
            "no answer of the authority: ",
            "authority_dns",
            "see that this machine resolves",
        ),
        (
            "client_secret",
            no_trust,
            "no answer of the authority: .*certificate verify failed",
            "authority_tls",
            "where a proxy opens TLS",
        ),
        (
            "client_secret",
            nobody,
            "no answer of the authority: .*[Cc]onnect",
            "authority_connection",
            "let this machine reach",
        ),
        (
            "client_secret",
            no_proxy,
            "no answer of the authority: ",
            "authority_proxy",
            "see that HTTPS_PROXY is right",
        ),
        (
            "managed_identity",
            no_endpoint,
            "no answer of the managed identity endpoint: ",
            "identity_unreachable",
            "run the exporter in Azure",
        ),
        (
            "azure_cli",
            no_program,
            "the program az is not on PATH",
            "azure_cli",
            "install the Azure CLI",
        ),
        (
            "azure_cli",
            logged_out,
            "az: ERROR: Please run 'az login' to setup account.",
            "azure_cli",
            "run az login as the user",
        ),
        (
            "azure_cli",
            broken,
            "az: ERROR: the connection was reset",
            "azure_cli",
            "run az account get-access-token",
        ),
        ("default", nothing, "tried environment: not set", "credential", "set auth.method"),
        (
            "workload_identity",
            no_token_file,
            ".*/token: No such file or directory",
            "file",
            "see that the file is there",
        ),
        (
            "client_certificate",
            expired_certificate,
            "AADSTS7000.*; the certificate in .*client.pfx, [0-9A-F]{40}, expired on 20",
            "certificate",
            "make a new certificate",
        ),
        (
            "client_certificate",
            unknown_certificate,
            "AADSTS700027.*; the certificate in .*client.pfx, [0-9A-F]{40}, holds until 20",
            "certificate",
            "upload the certificate",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_this_machine_lacks(
    method: str,
    spoil: Callable[[Played], Awaitable[None]],
    text: str,
    cause: str,
    cure: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with played(method, tmp_path, monkeypatch) as made:
        await spoil(made)
        with environment(monkeypatch, made.environment):
            error = await failure_of(made)
    assert re.match(text, str(error)), str(error)
    assert "hidden-word" not in str(error)
    assert (error.cause, error.cure[: len(cure)]) == (cause, cure)


async def test_a_proxy_that_refuses_is_named_and_not_asked_for_what_is_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        played("client_secret", tmp_path, monkeypatch) as made,
        proxy(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") as url,
    ):
        with environment(monkeypatch, {**made.environment, "HTTPS_PROXY": url}):
            error = await failure_of(made)
        assert error.cause == "authority_proxy"
        assert "403" in str(error)
    async with (
        played("managed_identity", tmp_path, monkeypatch) as made,
        proxy(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") as url,
    ):
        proxies = {"HTTP_PROXY": url, "HTTPS_PROXY": url}
        with environment(monkeypatch, {**made.environment, **proxies}):
            (account,) = loader.load(made.write_config()).accounts
            sign_in = SignIn(account.auth, account.scope, account.authority)
            assert (await sign_in.get_token()).token


@pytest.mark.parametrize(
    ("method", "cause"),
    [
        ("client_secret", "authority_timeout"),
        ("managed_identity", "identity_unavailable"),
        ("default", "credential"),
    ],
)
async def test_an_issuer_that_does_not_answer(
    method: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played(method, tmp_path, monkeypatch) as made:
        made.identity.failures.set("hang")
        error = await failure_of(made, within=1.5)
    assert (str(error), error.cause) == ("no token within 1.5 s", cause)


async def test_default_stays_with_what_gave_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played("azure_cli", tmp_path, monkeypatch) as made:
        made.auth = {"method": "default"}
        url = made.identity.url
        with environment(
            monkeypatch, {**made.environment, "AZURE_POD_IDENTITY_AUTHORITY_HOST": url}
        ):
            (account,) = loader.load(made.write_config()).accounts
            sign_in = SignIn(account.auth, account.scope, account.authority)
            await sign_in.get_token()
            assert sign_in.chosen == "managed_identity"
            made.identity.failures.set("no-identity", "imds")
            # az could give one, of another identity.
            with pytest.raises(CredentialError, match="Identity not found"):
                await sign_in.get_token()


def test_each_code_is_in_one_row_and_each_text_is_one_phrase() -> None:
    codes = [code for row in CAUSES for code in row.codes]
    assert len(codes) == len(set(codes))
    for row in CAUSES:
        assert re.fullmatch(r"[a-z_]+", row.cause)
        for text in (row.what, row.cure):
            assert text == text.strip().rstrip(".")
            assert "\n" not in text
