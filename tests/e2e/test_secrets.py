"""No secret leaves the process: not in the log, on a page, in a metric or in the state file."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from exporter.batch.auth import SignIns
from exporter.batch.budget import Budget
from exporter.batch.session import Session
from exporter.batch.transport import Transport
from exporter.config import loader
from exporter.exposition.body import Format
from exporter.service import logs
from exporter.service.service import open_service
from exporter.simulator import (
    SCENARIOS,
    Clock,
    Faults,
    Rule,
    Simulation,
    World,
    serve,
    serve_identity,
)
from tests.conftest import Observed
from tests.process import finish, logged_address, program, stop

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
SENTINEL = "s3ntinel~that+nobody/may=see"


def traces(secret: str) -> set[bytes]:
    """How a secret may look: as it is, encoded, decoded, and as Python or JSON writes it."""
    raw = {secret.encode()}
    with suppress(ValueError):
        raw.add(base64.b64decode(secret, validate=True))
    found = set(raw)
    for each in raw:
        found.add(quote(each, safe="").encode())
        found.add(base64.b64encode(each))
        found.add(each.hex().encode())
        found.add(repr(each)[2:-1].encode())
    return found


def assert_hidden(emitted: Iterable[str | bytes], *secrets: str) -> None:
    for output in emitted:
        data = output.encode() if isinstance(output, str) else output
        for secret in secrets:
            for trace in traces(secret):
                assert trace not in data, data[max(0, data.find(trace) - 200) :][:400]


@asynccontextmanager
async def simulated(*faults: Faults) -> AsyncIterator[Simulation]:
    world = World(SCENARIOS["steady"], seed=2, jobs=3, nodes=3, start=START)
    async with serve(world, Clock(START, speed=60.0), interceptors=faults) as simulation:
        yield simulation


def write_config(
    folder: Path, endpoint: str, sign_in: dict[str, str], **more: Any
) -> tuple[Path, str]:
    account = {
        "name": "simulated",
        "endpoint": endpoint,
        "auth": sign_in,
        "requests_per_second": 100,
        "discovery_interval": "1s",
        "request_timeout": "30s",
        **more,
    }
    defaults = {"interval": "1s", "collect": ["task_counts", "preparation_release", "tasks"]}
    config = {"state_file": "state.db", "defaults": defaults, "accounts": [account]}
    file = folder / "config.yaml"
    file.write_text(json.dumps(config))
    return file, f"--config.file={file}"


PAGES = (
    *("/metrics", "/", "/config", "/-/ready", "/-/healthy", "/api/v1/failures"),
    *("/api/v1/status", "/api/v1/jobs", "/api/v1/config", "/api/v1/openapi.json"),
)


async def pages(session: aiohttp.ClientSession) -> list[bytes]:
    return [await (await session.get(page)).read() for page in PAGES]


async def reload(session: aiohttp.ClientSession, status: int) -> bytes:
    async with session.post("/-/reload") as answer:
        assert answer.status == status
        return await answer.read()


async def seen(session: aiohttp.ClientSession, text: bytes) -> None:
    """Wait until the metrics say so."""
    async with asyncio.timeout(200):
        while text not in await (await session.get("/metrics")).read():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("form", "where"), [("logfmt", "key_file"), ("json", "key_env")])
async def test_an_account_key_is_seen_nowhere(form: str, where: str, tmp_path: Path) -> None:
    faults = Faults()
    async with simulated(faults) as simulation:
        key = simulation.account_key
        value = {"key_file": "key", "key_env": "ACCOUNT_KEY"}[where]
        sign_in = {"method": "shared_key", where: value}
        (tmp_path / "key").write_text(key)
        (tmp_path / "key").chmod(0o644)
        file, flag = write_config(tmp_path, simulation.endpoint, sign_in)
        environment = {"ACCOUNT_KEY": key} if where == "key_env" else {}
        common = (flag, "--log.level=debug", f"--log.format={form}")
        emitted: list[str | bytes] = []
        for command in (("check", flag), ("scrape", *common)):
            status, output, errors = await finish(*command, **environment)
            assert status == 0, errors
            emitted += (output, errors)
        started = program(
            "run",
            *common,
            "--web.listen-address=127.0.0.1:0",
            "--web.enable-lifecycle",
            **environment,
        )
        async with started as exporter, asyncio.timeout(200):
            url = (await logged_address(exporter)).removesuffix("/metrics")
            async with aiohttp.ClientSession(url) as session:
                await seen(session, b'azure_batch_up{account="simulated"} 1\n')
                emitted += await pages(session)
                emitted.append(await reload(session, 200))
                faults.set(Rule("authentication-failed"))
                await seen(session, b'azure_batch_up{account="simulated"} 0\n')
                faults.set(Rule("truncated-json"))
                await seen(session, b'code="invalid"')
                emitted += await pages(session)
                good = file.read_text()
                # The mistakes of those who are in a hurry.
                mistakes = (
                    good.replace('"method"', f'"key": {json.dumps(key)}, "method"'),
                    good.replace('"discovery_interval": "1s"', f'"api_key": {json.dumps(key)}'),
                )
                for text in mistakes:
                    file.write_text(text)
                    emitted.append(await reload(session, 500))
                file.write_text(good)
                if where == "key_file":
                    for broken in (f"{key}{key}", f"!{key}", f"ü{key}"):
                        (tmp_path / "key").write_text(broken)
                        emitted.append(await reload(session, 500))
                    (tmp_path / "key").unlink()
                    emitted.append(await reload(session, 500))
                emitted += await pages(session)
            emitted.append(await stop(exporter))
        emitted += [each.read_bytes() for each in tmp_path.glob("state.db*")]
        assert any(b"simulated" in each for each in emitted if isinstance(each, bytes))
        assert_hidden(emitted, key)


@pytest.mark.full
async def test_a_token_is_seen_nowhere(tmp_path: Path) -> None:
    faults = Faults()
    async with simulated(faults) as simulation, serve_identity(simulation.tokens) as identity:
        _, flag = write_config(tmp_path, simulation.endpoint, {"method": "managed_identity"})
        environment = {
            "IDENTITY_ENDPOINT": identity.app_service_url,
            "IDENTITY_HEADER": identity.header,
        }
        emitted: list[str | bytes] = []
        for form, rules in (("logfmt", ()), ("json", (Rule("auth-expired"),))):
            faults.set(*rules)
            command = ("scrape", flag, "--log.level=debug", f"--log.format={form}")
            _, output, errors = await finish(*command, **environment)
            emitted += (output, errors)
        wrong = {**environment, "IDENTITY_HEADER": SENTINEL}
        emitted += (await finish("scrape", flag, "--log.level=debug", **wrong))[1:]
        emitted += [each.read_bytes() for each in tmp_path.glob("state.db*")]
        assert simulation.tokens._issued
        assert_hidden(emitted, SENTINEL, identity.header, *simulation.tokens._issued)


@asynccontextmanager
async def refusing_proxy() -> AsyncIterator[str]:
    """A proxy that wants other credentials, and says which it got; gives its address."""

    async def refuse(request: web.BaseRequest) -> web.Response:
        return web.Response(status=407, headers={"Proxy-Authenticate": "Basic"})

    runner = web.ServerRunner(web.Server(refuse))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


APPLICATION = {"tenant_id": "00000000-0000-0000-0000-000000000001", "client_id": "c"}


@pytest.mark.full
@pytest.mark.parametrize(("form", "proxy"), [("logfmt", "refusing"), ("json", "closed")])
async def test_what_signs_an_application_in_and_what_a_proxy_wants_is_seen_nowhere(
    form: str, proxy: str, tmp_path: Path
) -> None:
    pem = private_key()
    sign_ins = (
        {"method": "client_secret", **APPLICATION, "client_secret_file": "secret"},
        {"method": "client_secret", **APPLICATION, "client_secret_env": "CLIENT_SECRET"},
        {"method": "client_certificate", **APPLICATION, "certificate_file": "broken.pem"},
        {"method": "shared_key", "key_env": "BATCH_KEY"},
    )
    async with refusing_proxy() as address:
        address = address if proxy == "refusing" else "127.0.0.1:1"
        url = f"http://someone:{quote(SENTINEL, safe='')}@{address}"
        environment = {"CLIENT_SECRET": SENTINEL, "HTTPS_PROXY": url, "https_proxy": url}

        async def scrape(number: int, sign_in: dict[str, str]) -> tuple[int, str, str]:
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "secret").write_text(SENTINEL)
            (folder / "broken.pem").write_text(pem)  # a key without a certificate
            _, flag = write_config(folder, "https://account.invalid", sign_in)
            command = ("scrape", flag, "--log.level=debug", f"--log.format={form}")
            return await finish(*command, **environment)

        results = await asyncio.gather(*(scrape(*each) for each in enumerate(sign_ins)))
    emitted: list[str | bytes] = [text for _, *texts in results for text in texts]
    # The certificate that is none is a mistake of the configuration.
    assert [status for status, _, _ in results] == [1, 1, 2, 1], emitted
    emitted += [each.read_bytes() for each in tmp_path.glob("*/state.db*")]
    proxy_authorization = base64.b64encode(f"someone:{SENTINEL}".encode()).decode()
    lines = [line for line in pem.splitlines() if not line.startswith("--")]
    assert_hidden(emitted, SENTINEL, proxy_authorization, *lines)


@pytest.mark.parametrize("form", logs.FORMATS)
async def test_a_traceback_does_not_show_what_was_at_hand(
    form: logs.LogFormat, tmp_path: Path
) -> None:
    times: list[float] = [START.timestamp()]

    def now() -> float:
        return times[0]

    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure("debug", form, stream)
    try:
        async with simulated() as simulation:
            (tmp_path / "key").write_text(simulation.account_key)
            sign_in = {"method": "shared_key", "key_file": "key"}
            file, _ = write_config(tmp_path, simulation.endpoint, sign_in)
            async with open_service(loader.load(file), now=now) as service:
                times.clear()  # an IndexError in the middle of a poll
                await service.run_once()
                times.append(START.timestamp())
                shown = service.exposition.body(Format.TEXT).plain
            logged = stream.getvalue()
            assert "unexpected error in a poll" in logged
            assert "Traceback" in logged
            assert_hidden((logged, shown), simulation.account_key)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


async def test_nothing_that_knows_a_secret_shows_it(tmp_path: Path) -> None:
    key = base64.b64encode(b"a key that nobody may see").decode()
    (tmp_path / "key").write_text(key)
    (tmp_path / "secret").write_text(SENTINEL)
    files = {
        "key": {"method": "shared_key", "key_file": "key"},
        "secret": {"method": "client_secret", **APPLICATION, "client_secret_file": "secret"},
    }
    for sign_in in files.values():
        file, _ = write_config(tmp_path, "https://account.invalid", sign_in)
        config = loader.load(file)
        (account,) = config.accounts
        signer = SignIns().auth(account)
        known: list[Any] = [config, account, account.auth, signer]
        async with open_service(config) as service:
            transport = Transport(
                http=Session(account.endpoint),
                auth=signer,
                budget=Budget(1.0, lambda _: None),
                observer=Observed(),
                request_timeout=1.0,
            )
            (polled,) = service._accounts.values()
            known += [transport, service, polled, polled.wanted, getattr(signer, "tokens", "")]
            shown = [text for each in known for text in (repr(each), str(each))]
            shown.append(config.model_dump_json())
            assert_hidden(shown, key, SENTINEL)
            await transport.close()


# Files


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)])
def test_a_secret_that_every_user_can_read_is_a_warning_once(
    mode: int, warnings: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "real").write_text("AAAA")
    (tmp_path / "real").chmod(mode)
    (tmp_path / "key").symlink_to("real")  # as Kubernetes mounts it; the link itself is 0777
    auth = {"method": "shared_key", "key_file": "key"}
    accounts = [
        {"name": name, "endpoint": f"https://{name}.invalid", "auth": auth} for name in ("a", "b")
    ]
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"accounts": accounts}))
    loader.load(file)
    messages = [record.getMessage() for record in caplog.records]
    text = f"every user of this machine can read the secret in {tmp_path}/key: chmod 600 it"
    assert messages == [text] * warnings
    loader.load(file)
    assert len(caplog.records) == 2 * warnings  # with each load
