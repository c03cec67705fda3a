"""The listener over real sockets: TLS, basic auth, and what clients may cost."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import random
import resource
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import aiohttp
import bcrypt
import pytest
import yaml

from exporter import config
from exporter.cli import healthcheck
from exporter.exposition.body import Body, Exposition, Format
from exporter.service.open_files import raise_limit
from exporter.service.service import Service, open_service
from exporter.web.app import build_app
from exporter.web.pages import STATIC
from exporter.web.server import basic_auth as auth_module
from exporter.web.server.basic_auth import BasicAuth
from exporter.web.server.limits import Limits, RateLimiter
from exporter.web.server.listener import Listening, listen
from exporter.web.server.web_config import RateLimit, WebConfig
from exporter.web.server.web_config_file import CurrentSettings, Settings, WebConfigFile
from tests.certificates import Authority
from tests.test_web_config import Clock

REFUSED = (aiohttp.ClientError, OSError)
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
HEALTH = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def service(make_config: Callable[..., config.Config]) -> AsyncIterator[Service]:
    """A service that polls nothing, so that it shows only its own metrics."""
    async with open_service(make_config("http://127.0.0.1:1")) as opened:
        yield opened


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority whose files are beside the web configuration."""
    return Authority(tmp_path)


@pytest.fixture
def clock() -> Clock:
    """The time of a web configuration file."""
    return Clock()


@asynccontextmanager
async def serving(
    service: Service,
    settings: CurrentSettings = Settings,
    auth: BasicAuth | None = None,
    **limits: Any,
) -> AsyncIterator[Listening]:
    """A server of `service` at a free port."""
    bounds = Limits(**limits)
    app = build_app(service, "/metrics", settings, bounds, auth=auth)
    server = await listen(app, [("127.0.0.1", 0)], settings, bounds)
    try:
        yield server
    finally:
        await server.close()


async def status(server: Listening, path: str = "/metrics", **options: Any) -> int:
    """Status of an answer, over a connection of its own."""
    async with (
        aiohttp.ClientSession(server.urls[0]) as session,
        session.get(path, **options) as response,
    ):
        await response.read()
        return response.status


def port_of(server: Listening) -> int:
    return int(server.urls[0].rpartition(":")[2])


async def connect(server: Listening) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port_of(server))


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes, which is soon."""
    try:
        async with asyncio.timeout(200):
            return await reader.read()
    except ConnectionError:
        return b""


async def nobody_is_left(server: Listening) -> None:
    async with asyncio.timeout(200):
        while server.connections:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)


# TLS


def tls_file(folder: Path, **settings: Any) -> Path:
    """A web configuration with TLS."""
    section = {"cert_file": "server.crt", "key_file": "server.key", **settings}
    file = folder / "web.yaml"
    file.write_text(yaml.safe_dump({"tls_server_config": section}))
    return file


MUTUAL = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.crt"}


async def test_tls_speaks_the_versions_that_are_allowed(
    service: Service, authority: Authority, tmp_path: Path
) -> None:
    authority.server()
    old, new = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    for settings, allowed, refused in (
        ({}, [old, new], []),
        ({"min_version": "TLS13"}, [new], [old]),
        ({"max_version": "TLS12"}, [old], [new]),
    ):
        async with serving(service, WebConfigFile(tls_file(tmp_path, **settings))) as server:
            assert server.urls[0].startswith("https://")
            for version in allowed:
                assert await status(server, ssl=authority.trust(version=version)) == 200
            for version in refused:
                with pytest.raises(REFUSED):
                    await status(server, ssl=authority.trust(version=version))


async def test_plain_http_to_a_tls_port_is_refused(
    service: Service, authority: Authority, tmp_path: Path
) -> None:
    authority.server()
    async with serving(service, WebConfigFile(tls_file(tmp_path))) as server:
        reader, writer = await connect(server)
        writer.write(GET)
        assert b"200" not in await rest(reader)
        writer.close()
        await nobody_is_left(server)


@pytest.mark.parametrize(
    ("client_auth", "without", "strange"),
    [
        ("RequestClientCert", True, True),
        ("VerifyClientCertIfGiven", True, False),
        ("RequireAnyClientCert", False, False),  # stricter than its name: see the reference
        ("RequireAndVerifyClientCert", False, False),
    ],
)
async def test_client_certificates_are_required_and_verified(
    service: Service,
    authority: Authority,
    tmp_path: Path,
    client_auth: str,
    without: bool,
    strange: bool,
) -> None:
    authority.server()
    own = authority.client("prometheus.example")
    other = tmp_path / "other"
    other.mkdir()
    foreign = Authority(other).client("prometheus.example")
    ca = {} if client_auth == "RequestClientCert" else {"client_ca_file": "ca.crt"}
    file = tls_file(tmp_path, client_auth_type=client_auth, **ca)
    async with serving(service, WebConfigFile(file)) as server:
        assert await status(server, ssl=authority.trust(own)) == 200
        for client, is_allowed in ((None, without), (foreign, strange)):
            # In TLS 1.3 a client learns only by its first answer that it is not wanted.
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                if is_allowed:
                    assert await status(server, ssl=authority.trust(client, version)) == 200
                else:
                    with pytest.raises(REFUSED):
                        await status(server, ssl=authority.trust(client, version))
        await nobody_is_left(server)


@pytest.mark.parametrize("name", ["prometheus.example", "10.1.2.3", "::1", "scraper@example.org"])
async def test_only_clients_with_an_allowed_name_may_connect(
    service: Service, authority: Authority, tmp_path: Path, name: str
) -> None:
    authority.server()
    file = tls_file(tmp_path, **MUTUAL, client_allowed_sans=["someone.example", name])
    async with serving(service, WebConfigFile(file)) as server:
        allowed = authority.client(name, "besides.example")
        assert await status(server, ssl=authority.trust(allowed)) == 200
        refused = authority.client("besides.example", f"www.{name}" if "." in name else "::2")
        with pytest.raises(REFUSED):
            await status(server, ssl=authority.trust(refused))
        await nobody_is_left(server)


async def test_an_intermediate_authority_is_trusted_without_the_one_above_it_as_in_go(
    service: Service, authority: Authority, tmp_path: Path
) -> None:
    authority.server()
    folder = tmp_path / "teams"
    folder.mkdir()
    team = authority.intermediate(folder)
    file = tls_file(tmp_path, **MUTUAL | {"client_ca_file": str(team.file)})
    async with serving(service, WebConfigFile(file)) as server:
        assert await status(server, ssl=authority.trust(team.client("a.example"))) == 200
        with pytest.raises(REFUSED):
            await status(server, ssl=authority.trust(authority.client("a.example")))


async def test_a_rotated_certificate_is_shown_to_the_next_client_and_drops_nobody(
    service: Service, authority: Authority, tmp_path: Path, clock: Clock
) -> None:
    authority.server()
    settings = WebConfigFile(tls_file(tmp_path), clock=clock)
    new = tmp_path / "new"
    new.mkdir()
    async with (
        serving(service, settings) as server,
        aiohttp.ClientSession(server.urls[0]) as session,
    ):
        trusted = authority.trust()
        assert (await session.get("/-/healthy", ssl=trusted)).status == 200
        other = Authority(new)
        for file in other.server():
            file.rename(tmp_path / file.name)
        clock.now += 1
        assert (await session.get("/-/healthy", ssl=trusted)).status == 200  # still connected
        assert await status(server, ssl=other.trust()) == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await status(server, ssl=trusted)


async def test_after_the_client_ca_changed_certificates_of_the_old_one_are_refused(
    service: Service, authority: Authority, tmp_path: Path, clock: Clock
) -> None:
    authority.server()
    old = authority.trust(authority.client("a.example"))
    new_folder = tmp_path / "new"
    new_folder.mkdir()
    new_authority = Authority(new_folder)
    new = authority.trust(new_authority.client("a.example"))
    file = tls_file(tmp_path, **MUTUAL | {"client_ca_file": "clients.crt"})
    (tmp_path / "clients.crt").write_bytes(authority.file.read_bytes())
    async with serving(service, WebConfigFile(file, clock=clock)) as server:
        assert await status(server, ssl=old) == 200
        with pytest.raises(REFUSED):
            await status(server, ssl=new)
        (tmp_path / "clients.crt").write_bytes(new_authority.file.read_bytes())
        clock.now += 1
        assert await status(server, ssl=new) == 200
        with pytest.raises(REFUSED):  # nor does it get in by the session of before
            await status(server, ssl=old)


@pytest.mark.parametrize("change", ["client CA", "names", "policy", "own certificate"])
async def test_a_kept_connection_ends_when_certificates_of_its_client_are_withdrawn(
    service: Service, authority: Authority, tmp_path: Path, clock: Clock, change: str
) -> None:
    authority.server()
    trusted = authority.trust(authority.client("a.example"))
    (tmp_path / "clients.crt").write_bytes(authority.file.read_bytes())
    mutual = MUTUAL | {"client_ca_file": "clients.crt"}
    file = tls_file(tmp_path, **mutual | {"client_allowed_sans": ["a.example"]})
    async with serving(service, WebConfigFile(file, clock=clock)) as server:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port_of(server), ssl=trusted, server_hostname="localhost"
        )
        writer.write(HEALTH)
        assert await reader.readuntil(b"Healthy.\n")
        if change == "client CA":
            (tmp_path / "new").mkdir()
            (tmp_path / "clients.crt").write_bytes(Authority(tmp_path / "new").file.read_bytes())
        elif change == "names":
            tls_file(tmp_path, **mutual | {"client_allowed_sans": ["b.example"]})
        elif change == "policy":
            tls_file(tmp_path, **mutual | {"client_allowed_sans": ["a.example", "b.example"]})
        else:
            authority.server()
        clock.now += 1
        writer.write(HEALTH)
        answer = await reader.readuntil(b"Healthy.\n") if change == "own certificate" else b""
        assert bool(answer) or await rest(reader) == b""
        writer.close()


async def test_an_invalid_change_keeps_the_certificate_of_before(
    service: Service, authority: Authority, tmp_path: Path, clock: Clock
) -> None:
    certificate, _ = authority.server()
    async with serving(service, WebConfigFile(tls_file(tmp_path), clock=clock)) as server:
        certificate.write_text("half a certifi")
        clock.now += 1
        assert await status(server, ssl=authority.trust()) == 200


async def test_a_handshake_that_does_not_come_is_given_up(
    service: Service, authority: Authority, tmp_path: Path
) -> None:
    authority.server()
    settings = WebConfigFile(tls_file(tmp_path))
    async with serving(service, settings, header_timeout=0.05) as server:
        reader, writer = await connect(server)
        assert await rest(reader) == b""
        writer.close()
        await nobody_is_left(server)


# Basic auth


class CountingCheck:
    """bcrypt, with what it was asked. `cost` of each hash, in order."""

    def __init__(self) -> None:
        self.costs: list[bytes] = []

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        """As bcrypt does it."""
        self.costs.append(hashed[4:6])
        return bcrypt.checkpw(password, hashed)


def hash_of(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def fixed(**sections: Any) -> CurrentSettings:
    """Settings that do not change."""
    settings = Settings(WebConfig.model_validate(sections))
    return lambda: settings


async def test_every_path_needs_a_user_and_password(service: Service) -> None:
    settings = fixed(basic_auth_users={"alice": hash_of("s3cret")})
    async with serving(service, settings) as server:
        for path in (
            *("/metrics", "/-/reload", "/", "/job", "/config", "/nothing"),
            *("/api/v1/failures", "/api/v1/config", *(f"/{each}" for each in STATIC)),
        ):
            async with (
                aiohttp.ClientSession(server.urls[0]) as session,
                session.get(path) as response,
            ):
                assert response.status == 401
                assert response.headers["WWW-Authenticate"] == "Basic"
                assert await response.text() == "Unauthorized.\n"
        known = {"Authorization": basic("alice", "s3cret")}
        assert await status(server, headers=known) == 200
        assert await status(server, "/nothing", headers=known) == 404


class GatedCheck:
    """Finds only "right" right, and answers for others once `gate` is set. Counts all of them."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        """Released by each check."""
        self.count = 0

    def __call__(self, password: bytes, _: bytes) -> bool:
        """Without a hash."""
        self.count += 1
        self.begun.release()
        return password == b"right" or not self.gate.wait(200)


async def test_wrong_passwords_delay_neither_probes_nor_who_had_the_right_one(
    service: Service,
) -> None:
    check = GatedCheck()
    settings = fixed(basic_auth_users={"alice": hash_of("right")})
    right = {"Authorization": basic("alice", "right")}
    refused = asyncio.Semaphore(0)
    async with (
        serving(service, settings, BasicAuth(check)) as server,
        asyncio.timeout(200),
    ):

        async def guess(client: int) -> set[int]:
            """Guess 15 passwords on one connection; the statuses of the answers."""
            statuses = set()
            async with aiohttp.ClientSession(server.urls[0]) as session:
                for number in range(15):
                    wrong = {"Authorization": basic("alice", f"{client}-{number}")}
                    async with session.get("/metrics", headers=wrong) as response:
                        statuses.add(response.status)
                        assert response.status == 401 or response.headers["Retry-After"] == "1"
                        refused.release()
            return statuses

        assert await status(server, headers=right) == 200
        guessing = [asyncio.create_task(guess(client)) for client in range(8)]
        # Four wait for their hash, which does not come. All others are refused without one.
        for _ in range(4 * 15):
            await refused.acquire()
        for _ in ("the right one", "a wrong one"):  # a busy machine may start its thread late
            await asyncio.to_thread(check.begun.acquire)
        assert check.count == 2
        assert await status(server, headers=right) == 200
        assert await status(server, "/-/healthy") == 200
        assert await status(server, "/-/ready") == 503
        assert not all(task.done() for task in guessing)
        check.gate.set()
        assert set().union(*await asyncio.gather(*guessing)) == {401, 429}


async def test_one_client_leaves_room_for_the_passwords_of_others() -> None:
    check = GatedCheck()
    auth, users = BasicAuth(check), {"alice": hash_of("right")}

    async def outcome(client: str, password: str) -> bool | None:
        try:
            return await auth.allows(users, basic("alice", password), client)
        except auth_module.TooManyPasswords:
            return None

    flood = [asyncio.create_task(outcome("mallory", str(number))) for number in range(100)]
    others = [asyncio.create_task(outcome(f"c{number}", f"x{number}")) for number in range(11)]
    scrapes = [asyncio.create_task(outcome(f"p{number}", "right")) for number in range(5)]
    late = asyncio.create_task(outcome("late", "late"))
    await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
    check.gate.set()
    outcomes = await asyncio.gather(*flood)
    assert (outcomes.count(None), outcomes.count(False)) == (96, 4)
    assert await asyncio.gather(*others) == [False] * 11
    assert await asyncio.gather(*scrapes) == [True] * 5  # they share one check
    assert await late is None
    assert check.count == 4 + 11 + 1


@pytest.mark.parametrize(
    "header",
    [
        basic("alice", "wrong"),
        basic("bob", "s3cret"),
        basic("", ""),
        basic("alice", "s3cret" + "x" * 100),
        basic("alice", "\0"),
        "Basic",
        "Basic ",
        "Basic !!!!",
        "Basic YWxpY2U=",  # without a colon
        "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(),
        "Bearer s3cret",
        "Basic a\u00e9",
        "x" * 5000,
    ],
)
async def test_other_credentials_are_answered_with_401(service: Service, header: str) -> None:
    settings = fixed(basic_auth_users={"alice": hash_of("s3cret")})
    async with serving(service, settings) as server:
        assert await status(server, headers={"Authorization": header}) == 401


async def test_a_password_that_agrees_in_its_first_72_bytes_only_is_wrong(service: Service) -> None:
    long = "x" * 72
    settings = fixed(basic_auth_users={"alice": hash_of(long)})
    async with serving(service, settings) as server:
        for password, expected in ((long, 200), (long + "x", 401), (long[:-1], 401)):
            header = {"Authorization": basic("alice", password)}
            assert await status(server, headers=header) == expected


async def test_an_unknown_user_costs_the_same_work() -> None:
    users = {"alice": hash_of("a", 4), "bob": hash_of("b", 5)}
    check = CountingCheck()
    auth = BasicAuth(check)
    assert await auth.allows(users, basic("alice", "a"))
    assert not await auth.allows(users, basic("alice", "x" * 73))
    assert check.costs == [b"04", b"04"]
    check.costs.clear()
    for number in range(20):
        assert not await auth.allows(users, basic(f"user-{number}", "a"))
    assert len(check.costs) == 20
    assert set(check.costs) == {b"04", b"05"}


async def test_what_came_out_is_remembered_and_bounded() -> None:
    users = {"alice": hash_of("right")}
    check = GatedCheck()
    check.gate.set()
    auth = BasicAuth(check)
    right, wrong = basic("alice", "right"), basic("alice", "wrong")
    for _ in range(3):
        assert await auth.allows(users, right)
        assert not await auth.allows(users, wrong)
    assert check.count == 2
    for number in range(auth_module._CACHED):
        assert not await auth.allows(users, basic(f"user-{number}", "wrong"))
    check.count = 0
    assert await auth.allows(users, right)  # wrong ones never push it out
    assert check.count == 0
    assert not await auth.allows(users, wrong)
    assert check.count == 1
    assert await auth.allows({"alice": hash_of("new")}, right)
    assert check.count == 2


async def test_one_password_is_hashed_at_a_time_and_only_once() -> None:
    users = {"alice": hash_of("a")}
    at_once: list[int] = []
    running: list[None] = []

    def check(password: bytes, hashed: bytes) -> bool:
        running.append(None)
        at_once.append(len(running))
        try:
            return bcrypt.checkpw(password, hashed)
        finally:
            running.pop()

    auth = BasicAuth(check)
    headers = [basic("alice", "a" if number % 2 else f"b{number % 8}") for number in range(40)]
    outcomes = await asyncio.gather(*(auth.allows(users, header, header) for header in headers))
    assert outcomes == [bool(number % 2) for number in range(40)]
    assert at_once == [1] * 5


async def test_users_and_headers_are_those_of_the_file_now(
    service: Service, tmp_path: Path, clock: Clock
) -> None:
    file = tmp_path / "web.yaml"
    file.write_text("")
    known = {"Authorization": basic("alice", "a")}
    async with serving(service, WebConfigFile(file, clock=clock)) as server:
        assert await status(server) == 200
        for password, expected in (("a", 200), ("b", 401)):
            file.write_text(yaml.safe_dump({"basic_auth_users": {"alice": hash_of(password)}}))
            clock.now += 1
            assert await status(server, headers=known) == expected
            assert await status(server) == 401


@pytest.mark.parametrize("with_tls", [False, True])
async def test_healthcheck_takes_a_401_as_alive_and_trusts_any_certificate(
    service: Service, authority: Authority, tmp_path: Path, with_tls: bool
) -> None:
    authority.server()
    file = tls_file(tmp_path) if with_tls else tmp_path / "web.yaml"
    async with serving(service, WebConfigFile(file) if with_tls else Settings) as server:
        url = f"{server.urls[0]}/-/healthy"
        assert await asyncio.to_thread(healthcheck.ask, url) == (True, "Healthy.")
    settings = WebConfigFile(file) if with_tls else Settings
    users = {"basic_auth_users": {"alice": hash_of("a")}}
    locked = replace(settings(), config=WebConfig.model_validate(users))
    async with serving(service, lambda: locked) as server:
        alive = True, "Alive: it asks for a user and password."
        assert await asyncio.to_thread(healthcheck.ask, f"{server.urls[0]}/metrics") == alive
        url = f"{server.urls[0]}/-/healthy"
        assert await asyncio.to_thread(healthcheck.ask, url) == (True, "Healthy.")
        assert not (await asyncio.to_thread(healthcheck.ask, "http://127.0.0.1:1"))[0]
        other_scheme = (
            url.replace("https:", "http:") if with_tls else url.replace("http:", "https:")
        )
        assert not (await asyncio.to_thread(healthcheck.ask, other_scheme))[0]


async def test_healthcheck_only_connects_where_a_certificate_is_needed(
    service: Service, authority: Authority, tmp_path: Path
) -> None:
    authority.server()
    async with serving(service, WebConfigFile(tls_file(tmp_path, **MUTUAL))) as server:
        url = f"tcp://127.0.0.1:{port_of(server)}"
        alive = True, "Alive: it takes connections."
        assert await asyncio.to_thread(healthcheck.ask, url) == alive
    assert not (await asyncio.to_thread(healthcheck.ask, url))[0]


# Headers, rates


async def test_headers_are_on_every_answer(service: Service) -> None:
    headers = {
        "Content-Security-Policy": "default-src 'self'",
        "X-Frame-Options": "deny",
        "X-Content-Type-Options": "nosniff",
        "X-XSS-Protection": "0",
        "Strict-Transport-Security": "max-age=60",
        "Server": "azure-batch-exporter",
    }
    ours = {name: value for name, value in headers.items() if name != "Server"}
    settings = fixed(http_server_config={"headers": ours})
    async with (
        serving(service, settings) as server,
        aiohttp.ClientSession(server.urls[0]) as session,
    ):
        for path in ("/metrics", "/", "/nothing", "/-/ready", "/api/v1/failures?x=1"):
            async with session.get(path) as response:
                assert headers.items() <= dict(response.headers).items()
        async with session.post("/metrics") as response:
            assert response.status == 405
            assert headers.items() <= dict(response.headers).items()


@pytest.mark.parametrize("path", ["/-/reload", "/-/forget-group", "/metrics", "/nothing"])
@pytest.mark.parametrize(
    ("fields", "is_refused"),
    [
        ({}, False),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://exporter.example:8"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://outside.example"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "http://evil.example"}, True),
        ({"Origin": "http://exporter.example:8"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": "https://exporter.example:9"}, False),
    ],
)
async def test_other_sites_cannot_have_a_browser_post(
    service: Service, path: str, fields: dict[str, str], is_refused: bool
) -> None:
    reloads = 0

    async def reload() -> None:
        nonlocal reloads
        reloads += 1

    app = build_app(service, "/metrics", reload=reload)
    server = await listen(app, [("127.0.0.1", 0)])
    headers = {"Host": "exporter.example:9", **fields}
    async with aiohttp.ClientSession(server.urls[0]) as session:
        async with session.post(path, headers=headers) as response:
            assert (response.status == 403) == is_refused
        async with session.get("/metrics", headers=headers) as response:
            assert response.status == 200  # without CORS no other site can read it
            assert "Access-Control-Allow-Origin" not in response.headers
    assert reloads == (path == "/-/reload" and not is_refused)
    await server.close()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("exporter.example", 200),
        ("EXPORTER.example.:10225", 200),
        ("prometheus-target:10225", 200),
        ("127.0.0.1:10225", 200),
        ("[::1]:10225", 200),
        ("localhost", 200),
        ("", 200),
        ("evil.example", 421),
        ("exporter.example.evil.example", 421),
        ("127.0.0.1.evil.example:10225", 421),
        ("[::1", 421),
        ("exporter.example@evil.example", 421),
    ],
)
async def test_a_name_that_is_rebound_to_the_server_reads_nothing(
    service: Service, host: str, expected: int
) -> None:
    names = ("Exporter.example", "prometheus-target")
    app = build_app(service, "/metrics", allowed_hosts=names)
    server = await listen(app, [("127.0.0.1", 0)])
    assert await status(server, headers={"Host": host}) == expected
    assert await status(server, "/-/healthy", headers={"Host": host}) == 200
    await server.close()


def test_a_rate_limit_lets_a_burst_through_and_then_one_each_interval() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    limit = RateLimit.model_validate({"interval": "2s", "burst": 3})

    def allowed(count: int) -> int:
        return sum(limiter.allow(limit) for _ in range(count))

    assert allowed(10) == 3
    clock.now = 1.9
    assert allowed(10) == 0
    clock.now = 2.0
    assert allowed(10) == 1
    clock.now = 1000.0
    assert allowed(10) == 3
    assert all(limiter.allow(RateLimit()) for _ in range(10))


async def test_requests_past_the_rate_limit_get_429_with_or_without_credentials(
    service: Service,
) -> None:
    users = {"alice": hash_of("a")}
    settings = fixed(rate_limit={"interval": "1h", "burst": 2}, basic_auth_users=users)
    async with serving(service, settings) as server:
        known = {"Authorization": basic("alice", "a")}
        assert await status(server, headers=known) == 200
        assert await status(server) == 401
        assert await status(server, headers=known) == 429


# What clients may cost


class LargeExposition:
    """Stands for a state whose body is `size` bytes."""

    def __init__(self, size: int) -> None:
        text = random.Random(1).randbytes(size // 2).hex().encode()
        self.state = Body([[b""]], [((text,),)], size // 100)

    def body(self, _: Format) -> Body:
        """The body, always the same."""
        return self.state


def with_body(service: Service, size: int) -> Service:
    service.exposition = cast(Exposition, LargeExposition(size))
    return service


async def test_a_large_body_arrives_whole_plain_and_compressed_and_head_has_none(
    service: Service,
) -> None:
    large = with_body(service, 3_000_000)
    async with (
        serving(large) as server,
        aiohttp.ClientSession(server.urls[0], auto_decompress=False) as session,
    ):
        async with session.get("/metrics", headers={"Accept-Encoding": "gzip"}) as response:
            text = gzip.decompress(await response.read())
        async with session.get("/metrics", headers={"Accept-Encoding": "identity"}) as response:
            plain = await response.read()
        async with session.head("/metrics", headers={"Accept-Encoding": "identity"}) as response:
            assert "Content-Length" not in response.headers  # it is made while it is sent
            assert await response.read() == b""
        reader, writer = await connect(server)
        # It knows no chunks: the end of the connection is the end.
        writer.write(b"GET /metrics HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        _, _, old = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        start = large.exposition.body(Format.TEXT).plain
        for whole in (text, plain, old):
            assert whole.startswith(start)
            assert whole[len(start) :].startswith(b"# HELP")


async def test_so_many_requests_are_answered_at_once_and_no_more(service: Service) -> None:
    async with serving(with_body(service, 20_000_000), max_requests=2) as server:
        stuck = [await connect(server) for _ in range(2)]
        for reader, writer in stuck:
            writer.write(GET)
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"  # and nothing is read after
        for path in ("/metrics", "/api/v1/failures", "/api/v1/jobs", "/"):
            async with (
                aiohttp.ClientSession(server.urls[0]) as session,
                session.get(path) as response,
            ):
                assert response.status == 503
                assert await response.text() == "Too many requests are being answered.\n"
        assert await status(server, "/-/healthy") == 200
        stuck[0][1].transport.abort()
        async with asyncio.timeout(200):
            while await status(server, "/api/v1/failures") == 503:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        stuck[1][1].transport.abort()


async def test_a_client_that_sends_nothing_is_cut_off(service: Service) -> None:
    async with serving(service, header_timeout=0.05) as server:
        reader, writer = await connect(server)
        assert await rest(reader) == b""
        writer.close()
        await nobody_is_left(server)


async def test_a_client_that_sends_its_headers_byte_by_byte_is_cut_off(service: Service) -> None:
    async with serving(service, header_timeout=1.0) as server:
        reader, writer = await connect(server)
        # A first request that was answered gives no more time for the second one.
        writer.write(HEALTH)
        assert await reader.readuntil(b"Healthy.\n")
        reading = asyncio.create_task(rest(reader))
        sent = 0
        while not reading.done():
            writer.write(b"GET /metrics HTTP/1.1\r\nX-Slow: "[sent : sent + 1] or b"x")
            sent += 1
            await asyncio.sleep(0.005)
        assert await reading == b""
        writer.close()
        await nobody_is_left(server)


async def test_an_idle_connection_is_kept_for_a_while(service: Service) -> None:
    async with serving(service, header_timeout=0.1, idle_timeout=2.0) as server:
        reader, writer = await connect(server)
        for _ in range(2):
            writer.write(HEALTH)
            assert await reader.readuntil(b"Healthy.\n")
            await asyncio.sleep(0.2)  # longer than a request may take, but nothing was begun
        assert await rest(reader) == b""
        writer.close()


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET /" + b"x" * 80_000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 80_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + (b"X: " + b"y" * 4000 + b"\r\n") * 500, b"431"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"no http at all\r\n\r\n", b"400"),
    ],
    ids=["long line", "long header", "many headers", "large headers", "tls", "nonsense"],
)
async def test_what_is_no_decent_request_ends_the_connection_and_fills_no_log(
    service: Service, request_: bytes, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    settings = fixed(http_server_config={"headers": {"Strict-Transport-Security": "max-age=60"}})
    async with serving(service, settings) as server:
        reader, writer = await connect(server)
        writer.write(request_)
        head, _, text = (await rest(reader)).decode().partition("\r\n\r\n")
        assert head[9:12] == answer.decode()
        assert ("more than 72 KiB" in text) == (answer == b"431")
        fields = head.splitlines()[1:]
        for field in (
            *("Server: azure-batch-exporter", "X-Content-Type-Options: nosniff"),
            *("Strict-Transport-Security: max-age=60", f"Content-Length: {len(text)}"),
        ):
            assert field in fields
        writer.close()
        await nobody_is_left(server)
    assert caplog.text == ""


@pytest.mark.parametrize("with_tls", [False, True])
async def test_header_fields_may_have_64_kib_and_who_sends_more_is_told(
    service: Service, authority: Authority, tmp_path: Path, with_tls: bool
) -> None:
    authority.server()
    settings = WebConfigFile(tls_file(tmp_path)) if with_tls else Settings
    options = {"ssl": authority.trust()} if with_tls else {}
    async with (
        serving(service, settings) as server,
        aiohttp.ClientSession(server.urls[0]) as session,
    ):
        for size, expected in ((64 * 1024, 200), (1_000_000, 431), (16, 200)):
            cookie = {"Cookie": "a=" + "x" * size}
            async with session.get("/metrics", headers=cookie, **options) as response:
                assert response.status == expected
                assert "version" not in response.headers["Server"].lower()


async def test_requests_that_wait_for_their_turn_are_limited_too(service: Service) -> None:
    async with serving(with_body(service, 20_000_000)) as server:
        _, writer = await connect(server)
        writer.write(GET)
        async with asyncio.timeout(200):
            while not server.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        # The first answer is not read. The next request never ends.
        writer.write(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            for number in range(100):
                writer.write(f"X-{number}: ".encode() + b"y" * 4000 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0)
        await nobody_is_left(server)
        writer.close()


async def test_a_client_that_does_not_read_its_answer_is_cut_off(service: Service) -> None:
    async with serving(with_body(service, 20_000_000), write_timeout=0.5) as server:
        _, writer = await connect(server)
        writer.write(GET)
        await writer.drain()
        async with asyncio.timeout(200):
            while not server.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await nobody_is_left(server)
        writer.close()


async def test_a_client_that_takes_its_answer_too_slowly_is_cut_off(service: Service) -> None:
    async with serving(
        with_body(service, 20_000_000), write_timeout=0.1, least_rate=1e12
    ) as server:
        reader, writer = await connect(server)
        writer.write(GET)
        taken = 0
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(64 * 1024):
                taken += len(piece)
                await asyncio.sleep(0.01)
        assert taken < 20_000_000
        await nobody_is_left(server)
        writer.close()


async def test_a_client_that_asks_for_more_and_more_and_takes_nothing_is_cut_off(
    service: Service,
) -> None:
    async with serving(service, idle_timeout=0.1, write_timeout=0.1) as server:
        _, writer = await connect(server)
        writer.transport.pause_reading()
        writer.write(GET * 30 + b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await nobody_is_left(server)
        writer.close()


async def test_more_connections_than_allowed_are_refused_and_told_once(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(service, connections=4) as server:
        open_ = [await connect(server) for _ in range(4)]
        async with asyncio.timeout(200):
            while server.connections < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for _ in range(3):
            reader, writer = await connect(server)
            assert await rest(reader) == b""
            writer.close()
        assert caplog.messages == ["too many connections are open"]
        for _, writer in open_:
            writer.transport.abort()
        await nobody_is_left(server)
        assert await status(server) == 200


async def test_a_client_that_has_just_connected_when_the_server_stops_is_closed(
    service: Service,
) -> None:
    for turns in range(6):
        async with serving(service) as server:
            reader, writer = await connect(server)
            for _ in range(turns):
                await asyncio.sleep(0)
        assert await rest(reader) == b""
        writer.close()


@pytest.fixture
def many_files() -> None:
    """Both ends of a thousand connections are in this process."""
    assert raise_limit() >= 2500


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.full
@pytest.mark.usefixtures("many_files")
async def test_a_thousand_clients_that_do_not_read_cost_no_body_each(service: Service) -> None:
    size = 4_000_000
    large = with_body(service, size)
    async with serving(large, max_requests=0) as server:
        for encoding in (b"identity", b"gzip"):
            get = GET[:-2] + b"Accept-Encoding: " + encoding + b"\r\n\r\n"
            before = resident()
            clients = []
            for _ in range(1000):
                _, writer = await connect(server)
                writer.transport.pause_reading()
                writer.write(get)
                clients.append(writer)
            for _ in range(1200):  # turns in which each body is made and begun to be sent
                await asyncio.sleep(0)
            assert server.connections == 1000
            assert resident() - before < 300_000_000  # of 4 GB, were each a copy
            for writer in clients:
                writer.transport.abort()
            await nobody_is_left(server)


@pytest.mark.usefixtures("many_files")
async def test_a_thousand_scrapers_at_once_leave_turns_to_the_polls(service: Service) -> None:
    turns = 0

    async def poll() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with serving(service, max_requests=0) as server:
        clients = [await connect(server) for _ in range(1000)]
        polling = asyncio.create_task(poll())
        for _, writer in clients:
            writer.write(GET)
        for reader, _ in clients:
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        polling.cancel()
        assert turns > 1000
        for _, writer in clients:
            writer.transport.abort()
        await nobody_is_left(server)
