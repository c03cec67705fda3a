"""Each way to sign in, through what may happen to it: real sockets, the real azure-identity.

The issuers are the simulator's. What takes hours is played by the time at which a token is due.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exporter.batch import credentials, token_renewal
from exporter.batch.auth import TokenAuth
from exporter.batch.token_renewal import Tokens
from exporter.cli.certificate import server_certificate, write_client_certificate
from exporter.config import loader
from exporter.exposition.body import Format
from exporter.service.service import Service, open_service
from exporter.simulator import (
    SCENARIOS,
    Clock,
    Identity,
    Simulation,
    World,
    serve,
    serve_identity,
)
from tests.process import finish, logged_address, program, stop

START = datetime(2026, 6, 1, 12, tzinfo=UTC)

METHODS = (
    "client_secret",
    "client_certificate",
    "workload_identity",
    "managed_identity",
    "app_service",
    "azure_cli",
    "default",
)
"""Values of auth.method; app_service is a managed identity as in App Service and Container Apps."""

AZ = """\
#!{python}
import json, sys, urllib.request
mode = open({mode!r}).read().strip()
if mode == "logged-out":
    sys.exit("ERROR: Please run 'az login' to setup account.")
if mode:
    sys.exit("ERROR: the connection was reset")
resource = sys.argv[sys.argv.index("--resource") + 1]
url = {url!r} + "?api-version=2018-02-01&resource=" + resource
request = urllib.request.Request(url, headers={{"Metadata": "true"}})
answer = json.load(urllib.request.build_opener().open(request))
expires = int(answer["expires_on"])
print(json.dumps({{"accessToken": answer["access_token"], "expires_on": expires}}))
"""
"""Stands for the Azure CLI. It takes its tokens from the stand-in of a virtual machine."""


@dataclass
class Played:
    """An account, who issues its tokens, and what signs in to it by one method."""

    method: str
    folder: Path
    simulation: Simulation
    identity: Identity
    environment: dict[str, str] = field(default_factory=dict)
    auth: dict[str, str] = field(default_factory=dict)

    def prepare(self, authority: Path) -> None:
        """Write what the method needs, and note its settings."""
        identity = self.identity
        ids = {"tenant_id": identity.tenant_id, "client_id": identity.client_id}
        self.environment = {
            "AZURE_AUTHORITY_HOST": identity.authority,
            "SSL_CERT_FILE": str(authority),
        }
        self.auth = {"method": self.method}
        match self.method:
            case "client_secret":
                self.auth |= {**ids, "client_secret_file": "secret"}
                self._write("secret", identity.client_secret)
            case "client_certificate":
                self.auth |= {**ids, "certificate_file": "client.pfx"}
                self.new_certificate()
            case "workload_identity":
                self.environment |= {f"AZURE_{name.upper()}": value for name, value in ids.items()}
                self.environment["AZURE_FEDERATED_TOKEN_FILE"] = str(self.folder / "token")
                self.new_federated_token()
            case "app_service":
                self.auth = {"method": "managed_identity"}
                self.environment = {
                    "IDENTITY_ENDPOINT": identity.app_service_url,
                    "IDENTITY_HEADER": identity.header,
                }
            case "managed_identity" | "default":
                self.environment = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": identity.url}
            case "azure_cli":
                self._write_az()

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def _write_az(self) -> None:
        mode = self._write("az-mode", "")
        url = f"{self.identity.url}/metadata/identity/oauth2/token"
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        text = AZ.format(python=sys.executable, mode=str(mode), url=url)
        (folder / "az").write_text(text)
        (folder / "az").chmod(0o755)
        self.environment = {"PATH": f"{folder}:{os.environ['PATH']}"}

    def new_certificate(self) -> None:
        """Another certificate, in the file and at the application, in place of the old one."""
        pem, pfx = write_client_certificate(self.folder)
        pfx.chmod(0o600)
        self.identity.application.certificates[:] = [pem.read_bytes()]

    def new_federated_token(self) -> None:
        """A token of the service account, as Kubernetes writes it."""
        credential = self.identity.application.federated[0]
        self._write("token", credential.token(self.identity.now()))

    def refuse(self) -> None:
        """From now on no token is issued: the identity was taken away."""
        if self.method == "azure_cli":
            self._write("az-mode", "logged-out")
        elif self.endpoint == "entra":
            self.identity.failures.set("application-disabled")
        else:
            name = "no-identity" if self.endpoint == "imds" else "throttled"
            self.identity.failures.set(name)

    def break_down(self, failure: str) -> None:
        """From now on who issues tokens does not work."""
        if self.method == "azure_cli":
            self._write("az-mode", "broken")
        else:
            self.identity.failures.set(failure)

    def mend(self) -> None:
        """All works again."""
        if self.method == "azure_cli":
            self._write("az-mode", "")
        self.identity.failures.clear()

    def rotate(self) -> None:
        """Replace what is signed in with; the old one is of no use any more."""
        match self.method:
            case "client_secret":
                self.identity.application.secrets[:] = ["another-secret"]
                self._write("secret", "another-secret")
            case "client_certificate":
                self.new_certificate()
            case "workload_identity":
                old = self.identity.application.federated[0]
                renamed = type(old)(old.issuer, f"{old.subject}-renamed", old.audience)
                self.identity.application.federated[:] = [renamed]
                self.new_federated_token()
            case _:  # there is no secret: Azure replaces what is behind the endpoint
                pass

    @property
    def endpoint(self) -> str:
        """Who issues the tokens."""
        if self.method in ("client_secret", "client_certificate", "workload_identity"):
            return "entra"
        return "app_service" if self.method == "app_service" else "imds"

    @property
    def issued(self) -> int:
        """Tokens that were issued."""
        return self.identity.issued[self.endpoint]

    @property
    def asked(self) -> int:
        """Requests for tokens."""
        return self.identity.requests[self.endpoint]

    def write_config(self, *names: str) -> Path:
        """A configuration with an account of each name, all of them signing in alike."""
        accounts = [
            {
                "name": name,
                "endpoint": self.simulation.endpoint,
                "auth": self.auth,
                "requests_per_second": 100,
                "discovery_interval": "1s",
            }
            for name in names or ("acc",)
        ]
        text = json.dumps({"defaults": {"interval": "1s"}, "accounts": accounts})
        return self._write("config.yaml", text)


@contextmanager
def environment(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> Iterator[None]:
    """The environment of this process, with nothing else in it that signing in reads."""
    with monkeypatch.context() as patch:
        for name in list(os.environ):
            is_of_sign_in = name.startswith(("AZURE_", "IDENTITY_", "MSI_"))
            if is_of_sign_in or name.upper().endswith("_PROXY"):
                patch.delenv(name)
        for name, value in given.items():
            patch.setenv(name, value)
        yield


@asynccontextmanager
async def played(
    method: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Played]:
    world = World(SCENARIOS["steady"], seed=2, jobs=3, nodes=3, start=START)
    with server_certificate("127.0.0.1") as (tls, authority):
        async with (
            serve(world, Clock(START, speed=0.0)) as simulation,
            serve_identity(simulation.tokens, tls=tls) as identity,
        ):
            made = Played(method, folder, simulation, identity)
            made.prepare(authority)
            # How long is waited is proven in virtual time.
            monkeypatch.setattr(token_renewal, "FIRST_DELAY", 0.3)
            monkeypatch.setattr(credentials, "TIMEOUT", 2.0)
            monkeypatch.setattr(credentials, "LONG_TIMEOUT", 5.0)
            with environment(monkeypatch, made.environment):
                yield made


@asynccontextmanager
async def service_of(made: Played, *names: str) -> AsyncIterator[Service]:
    async with open_service(loader.load(made.write_config(*names))) as service:
        yield service


@asynccontextmanager
async def polling(service: Service) -> AsyncIterator[None]:
    """The service polls meanwhile."""
    task = asyncio.create_task(service.run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def tokens_of(service: Service, name: str = "acc") -> Tokens:
    credential = service._accounts[name].credential
    assert isinstance(credential, TokenAuth)
    return credential.tokens


def make_due(tokens: Tokens) -> None:
    """As if the token had been in use for long."""
    tokens._due_at = 0.0


def expire(tokens: Tokens) -> None:
    """As if the token's last second were over."""
    tokens._good_until = 0.0


def is_up(service: Service) -> bool:
    return 'azure_batch_up{account="acc"} 1\n' in text_of(service)


def text_of(service: Service) -> str:
    service.store.flush()
    return service.exposition.body(Format.TEXT).plain.decode()


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something that happens, however busy this machine is."""
    async with asyncio.timeout(200):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)


each_method = pytest.mark.parametrize("method", METHODS)


@each_method
async def test_first_sign_in(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with played(method, tmp_path, monkeypatch) as made, service_of(made) as service:
        await service.run_once()
        await service.run_once()
        assert is_up(service)
        assert "azure_batch_job_tasks{" in text_of(service)
        assert made.issued == 1


@each_method
async def test_renewal(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with played(method, tmp_path, monkeypatch) as made, service_of(made) as service:
        await service.run_once()
        make_due(tokens_of(service))
        await service.run_once()
        await until(lambda: made.issued == 2)
        await service.run_once()
        assert is_up(service)
        assert made.issued == 2


@each_method
@pytest.mark.parametrize("failure", ["refused", "server-error", "hang"])
async def test_renewal_fails_while_the_token_is_good(
    method: str, failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played(method, tmp_path, monkeypatch) as made, service_of(made) as service:
        await service.run_once()
        tokens = tokens_of(service)
        if failure == "refused":
            made.refuse()
        else:
            made.break_down(failure)
        make_due(tokens)
        asked = sum(made.simulation.requests.values())
        for _ in range(3):
            await service.run_once()
            assert is_up(service)
        assert sum(made.simulation.requests.values()) > asked
        if failure != "hang":
            await until(lambda: service.sign_in_trouble("acc") is not None)
            trouble = service.sign_in_trouble("acc")
            assert trouble is not None
            assert trouble.cause
            assert trouble.cure
        made.mend()
        await until(lambda: tokens.trouble is None and made.issued >= 2)
        assert service.sign_in_trouble("acc") is None
        assert is_up(service)


@each_method
async def test_a_token_that_the_service_revoked(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played(method, tmp_path, monkeypatch) as made, service_of(made) as service:
        await service.run_once()
        made.simulation.tokens._issued.clear()
        await service.run_once()
        assert is_up(service)
        assert made.issued == 2


@each_method
async def test_an_identity_that_was_taken_away_and_given_back(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played(method, tmp_path, monkeypatch) as made, service_of(made) as service:
        await service.run_once()
        made.refuse()
        made.simulation.tokens._issued.clear()
        expire(tokens_of(service))
        await service.run_once()
        assert not is_up(service)
        assert "azure_batch_account_failure{" in text_of(service)
        async with polling(service):
            made.mend()
            asked = made.asked
            await until(lambda: is_up(service))
            # The next attempt is the one that succeeds, whatever was waited for before.
            assert made.asked - asked == 1


@each_method
async def test_rotation_without_a_signal(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played(method, tmp_path, monkeypatch) as made, service_of(made) as service:
        await service.run_once()
        made.rotate()
        make_due(tokens_of(service))
        await service.run_once()
        await until(lambda: made.issued == 2 and tokens_of(service)._due_at)
        assert is_up(service)
        assert tokens_of(service).trouble is None
        # Also where the service refuses the old token at the same time.
        made.rotate()
        made.simulation.tokens._issued.clear()
        await service.run_once()
        assert is_up(service)


@each_method
@pytest.mark.parametrize("failure", ["reset", "unavailable"])
async def test_the_endpoint_is_down_and_back(
    method: str, failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played(method, tmp_path, monkeypatch) as made, service_of(made) as service:
        made.break_down(failure)
        await service.run_once()
        assert not is_up(service)
        async with polling(service):
            made.mend()
            await until(lambda: is_up(service) and "azure_batch_job_tasks{" in text_of(service))
            assert made.issued == 1


async def test_accounts_with_the_same_identity_cost_one_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("acc", "second", "third")
    async with (
        played("client_secret", tmp_path, monkeypatch) as made,
        service_of(made, *names) as service,
    ):
        await service.run_once()
        assert made.asked == made.issued == 1
        assert all(f'azure_batch_up{{account="{name}"}} 1\n' in text_of(service) for name in names)


async def test_a_new_certificate_authority_is_trusted_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(SCENARIOS["steady"], seed=2, jobs=3, nodes=3, start=START)
    with (
        server_certificate("127.0.0.1") as (tls, authority),
        server_certificate("127.0.0.1") as (_, other),
    ):
        bundle = tmp_path / "bundle.pem"
        bundle.write_bytes(other.read_bytes())
        async with (
            serve(world, Clock(START, speed=0.0), tls=tls) as simulation,
            serve_identity(simulation.tokens, tls=tls) as identity,
        ):
            made = Played("client_secret", tmp_path, simulation, identity)
            made.prepare(bundle)
            with environment(monkeypatch, made.environment):
                async with service_of(made) as service:
                    await service.run_once()
                    assert 'cause="authority_tls"' in text_of(service)
                    async with polling(service):
                        bundle.write_bytes(other.read_bytes() + authority.read_bytes())
                        await until(lambda: is_up(service))


@pytest.mark.parametrize("method", METHODS)
async def test_check_and_run_sign_in_by_each_method(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played(method, tmp_path, monkeypatch) as made:
        flag = f"--config.file={made.write_config()}"
        status, output, errors = await finish("check", "--online", flag, **made.environment)
        assert (status, errors) == (0, ""), output
        arguments = ("run", flag, "--web.listen-address=127.0.0.1:0", "--log.level=debug")
        async with program(*arguments, **made.environment) as exporter:
            await logged_address(exporter)
            await until(lambda: made.issued == 2)
            await until(lambda: made.simulation.requests["Job_GetTaskCounts"] > 3)
            logged = await stop(exporter)
        assert exporter.returncode == 0
        assert "Traceback" not in logged
        assert not [line for line in logged.splitlines() if "level=WARNING" in line]
        secrets = [*made.simulation.tokens._issued, made.identity.client_secret]
        if method == "workload_identity":
            secrets.append((tmp_path / "token").read_text())
        for secret in secrets:
            assert secret not in logged + output


async def test_a_federated_token_that_is_not_there_yet_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played("workload_identity", tmp_path, monkeypatch) as made:
        token = (tmp_path / "token").read_text()
        (tmp_path / "token").unlink()
        async with service_of(made) as service:
            await service.run_once()
            assert 'azure_batch_account_failure{account="acc",cause="file"} 1\n' in text_of(service)
            async with polling(service):
                (tmp_path / "token").write_text(token)
                await until(lambda: is_up(service))


async def test_all_that_az_started_ends_with_the_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played("azure_cli", tmp_path, monkeypatch) as made:
        ids = tmp_path / "ids"
        (tmp_path / "bin" / "az").write_text(
            f"#!/bin/sh\nsleep 1000 &\necho $! >> {ids}\necho $$ >> {ids}\nwait\n"
        )
        flag = f"--config.file={made.write_config()}"
        arguments = ("run", flag, "--web.listen-address=127.0.0.1:0")
        async with program(*arguments, **made.environment) as exporter:
            await until(lambda: ids.exists() and len(ids.read_text().split()) == 2)
            await stop(exporter)
        for each in map(int, ids.read_text().split()):
            await until(lambda each=each: not is_running(each))


async def test_what_az_leaves_in_a_session_of_its_own_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played("azure_cli", tmp_path, monkeypatch) as made, service_of(made) as service:
        az, ids = tmp_path / "bin" / "az", tmp_path / "ids"
        text = az.read_text()
        az.write_text(f"#!/bin/sh\nsetsid sleep 1000 &\necho $! >> {ids}\nsleep 1000\n")
        tokens_of(service)._timeout = 1.0
        await service.run_once()  # it ends by the time-out, although its output stays open
        assert not is_up(service)
        az.write_text(f"#!/bin/sh\nsetsid sleep 1000 &\necho $! >> {ids}\necho {{}}\n")
        await until(lambda: len(ids.read_text().split()) >= 2)
        az.write_text(text)
        async with polling(service):
            await until(lambda: is_up(service))
        for each in map(int, ids.read_text().split()):
            os.kill(each, signal.SIGKILL)


async def test_a_reload_during_an_outage_keeps_the_good_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played("client_secret", tmp_path, monkeypatch) as made, service_of(made) as service:
        await service.run_once()
        made.rotate()
        made.break_down("server-error")
        config = json.loads((tmp_path / "config.yaml").read_text())
        config["defaults"]["interval"] = "2s"
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        await service.configure(loader.load(tmp_path / "config.yaml"))
        await service.run_once()
        assert is_up(service)
        made.mend()
        await until(lambda: made.issued == 2)
        await service.run_once()
        assert is_up(service)


@pytest.mark.parametrize("file", ["secret", "token"])
async def test_a_pipe_in_place_of_a_secret_is_a_failure_that_heals(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = {"secret": "client_secret", "token": "workload_identity"}[file]
    async with played(method, tmp_path, monkeypatch) as made, service_of(made) as service:
        given = (tmp_path / file).read_text()
        (tmp_path / file).unlink()
        os.mkfifo(tmp_path / file)
        await service.run_once()
        assert not is_up(service)
        (tmp_path / file).unlink()
        (tmp_path / file).write_text(given)
        async with polling(service):
            await until(lambda: is_up(service))


def is_running(process: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.full
async def test_a_minute_of_failure_is_a_dozen_requests_and_few_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played("client_secret", tmp_path, monkeypatch) as made:
        made.identity.failures.set("secret-expired")
        flag = f"--config.file={made.write_config('one', 'two', 'three')}"
        arguments = ("run", flag, "--web.listen-address=127.0.0.1:0")
        async with program(*arguments, **made.environment) as exporter:
            await logged_address(exporter)
            await asyncio.sleep(61)
            logged = await stop(exporter)
        times = [request.at for request in made.identity.log]
        assert max(sum(at <= other < at + 60 for other in times) for at in times) <= 12
        lines = [line for line in logged.splitlines() if "level=INFO" not in line]
        assert len(lines) == 3, logged
        assert all('cause=client_secret cure="make a new secret' in line for line in lines)
        assert all("Trace ID: " in line for line in lines)


async def test_a_renewal_that_fails_is_one_line_with_cause_and_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        played("client_secret", tmp_path, monkeypatch) as made,
        service_of(made) as service,
    ):
        await service.run_once()
        made.identity.failures.set("conditional-access")
        make_due(tokens_of(service))
        with caplog.at_level(logging.WARNING):
            for _ in range(5):
                await service.run_once()
            await until(lambda: service.sign_in_trouble("acc") is not None)
            await service.run_once()
    (record,) = [each for each in caplog.records if each.name.startswith("exporter")]
    assert record.getMessage().startswith("the token cannot be renewed, the present one is good")
    assert vars(record)["cause"] == "conditional_access"
    assert vars(record)["cure"].startswith("ask the administrators")
    assert vars(record)["trace"].startswith("Trace ID: ")
