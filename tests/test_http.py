"""Requests over connections that stay open, against servers that do as they please."""

from __future__ import annotations

import asyncio
import base64
import gzip
import re
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext, SSLError

import pytest
from yarl import URL

from exporter.batch.session import KEEP_ALIVE, MAX_BODY, MAX_HEADER, Session, proxy_for
from tests.certificates import Authority

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def listening(serve: Serve, tls: SSLContext | None = None) -> AsyncIterator[int]:
    """A server that hands each connection to `serve`, and closes it after; gives its port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the other side has gone
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def opened(
    origin: str,
    proxy: URL | None = None,
    keep_alive: float = KEEP_ALIVE,
    max_body: int = MAX_BODY,
) -> AsyncIterator[Session]:
    """A session that is closed at the end."""
    session = Session(origin, proxy, keep_alive=keep_alive, max_body=max_body)
    try:
        yield session
    finally:
        await session.close()


class Script:
    """Answers requests of any connection with these in turn; None closes it."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while self.answers:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            answer = self.answers.pop(0)
            if answer is None:
                return
            writer.write(answer)
            await writer.drain()
        await reader.read()


async def bodies(script: Script, count: int, max_body: int = MAX_BODY) -> list[bytes]:
    """What so many requests of one session are answered."""
    async with (
        listening(script) as port,
        opened(f"http://127.0.0.1:{port}", max_body=max_body) as session,
    ):
        return [
            bytes((await session.get(f"http://127.0.0.1:{port}/a?b=c", {"X": "y"})).body)
            for _ in range(count)
        ]


async def test_a_request_is_what_it_should_be_and_the_connection_serves_the_next() -> None:
    script = Script(OK, OK, OK)
    assert await bodies(script, 3) == [b"{}"] * 3
    assert script.connections == 1
    first, host, *headers = script.requests[0].split(b"\r\n")
    assert first == b"GET /a?b=c HTTP/1.1"
    assert host.startswith(b"Host: 127.0.0.1:")
    assert b"X: y" in headers
    assert [line for line in headers if line.startswith(b"Accept-Encoding")] == [
        b"Accept-Encoding: gzip"
    ]


async def test_a_connection_that_was_closed_while_idle_costs_no_error() -> None:
    connections = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()

    async with listening(once) as port, opened(f"http://127.0.0.1:{port}") as session:
        for number in (1, 2, 3):
            assert (await session.get(f"http://127.0.0.1:{port}/", {})).body == b"{}"
            assert connections == number
            await asyncio.sleep(0.05)  # its end arrives


async def test_a_request_whose_connection_ends_is_not_sent_again_beside_the_budget() -> None:
    script = Script(OK, None, OK)
    with pytest.raises(ConnectionError, match="ended before an answer"):
        await bodies(script, 2)
    assert len(script.requests) == 2


async def test_a_new_connection_that_is_closed_without_an_answer_is_an_error() -> None:
    with pytest.raises(ConnectionError, match="ended before an answer"):
        await bodies(Script(None), 1)


async def test_an_answer_that_breaks_off_is_not_asked_for_again() -> None:
    script = Script(OK, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", None)

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            script.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(script.answers.pop(0) or b"")
        await writer.drain()

    async with listening(cut) as port, opened(f"http://127.0.0.1:{port}") as session:
        await session.get("http://x/", {})
        with pytest.raises(ConnectionError, match="ended within an answer"):
            await session.get("http://x/", {})
    assert len(script.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        OK + OK,
    ],
    ids=["it says close", "HTTP/1.0", "a second answer"],
)
async def test_a_connection_that_should_not_be_used_again_is_not(answer: bytes) -> None:
    script = Script(answer, OK)
    assert await bodies(script, 2) == [b"{}"] * 2
    assert script.connections == 2


async def test_one_that_was_idle_for_long_is_not_used_again() -> None:
    script = Script(OK, OK)
    async with (
        listening(script) as port,
        opened(f"http://127.0.0.1:{port}", keep_alive=0.01) as session,
    ):
        await session.get("http://x/", {})
        await asyncio.sleep(0.05)
        await session.get("http://x/", {})
    assert script.connections == 2


async def test_who_does_not_wait_any_longer_leaves_no_connection_behind() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.readexactly(1)
        ended.set()

    ended = asyncio.Event()
    async with listening(silent) as port, opened(f"http://127.0.0.1:{port}") as session:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.get("http://x/", {}), 0.02)
        await asyncio.wait_for(ended.wait(), 200)


async def test_bodies_come_in_every_form() -> None:
    zipped = gzip.compress(b"{") + gzip.compress(b"}")
    script = Script(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\n{\r\n1;x=y\r\n}\r\n0\r\nT: z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: GZIP \t\r\nContent-Length: %d\r\n\r\n%s"
        % (len(zipped), zipped),
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        OK,
    )
    assert await bodies(script, 6) == [b"{}", b"{}", b"{}", b"", b"", b"{}"]
    assert script.connections == 1


async def test_a_body_may_end_with_the_connection() -> None:
    async def until_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n{}")

    async with listening(until_the_end) as port, opened(f"http://127.0.0.1:{port}") as session:
        assert (await session.get("http://x/", {})).body == b"{}"


async def test_of_headers_with_one_name_the_first_counts() -> None:
    script = Script(
        b"HTTP/1.1 429 So?\r\nRetry-After: 1\r\nretry-after: 2\r\nContent-Length: 0\r\n\r\n"
    )
    async with listening(script) as port, opened(f"http://127.0.0.1:{port}") as session:
        answer = await session.get("http://x/", {})
    assert (answer.status, answer.reason, answer.headers["retry-after"]) == (429, "So?", "1")


@pytest.mark.parametrize("url", ["http://x/a b", "http://x/\r\nX: y", "http://x/ü"])
async def test_what_would_be_two_requests_is_none(url: str) -> None:
    script = Script(OK)
    async with listening(script) as port, opened(f"http://127.0.0.1:{port}") as session:
        with pytest.raises(ValueError, match="may not stand in a request"):
            await session.get(url, {})
    assert script.requests == []


async def test_a_header_of_two_lines_is_not_sent() -> None:
    script = Script(OK)
    async with listening(script) as port, opened(f"http://127.0.0.1:{port}") as session:
        with pytest.raises(ValueError, match="detected in headers"):
            await session.get("http://x/", {"Authorization": "a\nb"})
    assert script.requests == []


async def test_what_is_longer_than_may_be_is_refused() -> None:
    bomb = gzip.compress(b" " * 1001)
    for head, body in (
        (b"Content-Length: 1001\r\n", b" " * 1001),
        (b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(bomb), bomb),
    ):
        with pytest.raises(ValueError, match="longer than 1000 bytes"):
            await bodies(Script(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body), 1, max_body=1000)


async def test_a_body_in_chunks_of_two_bytes_is_refused_before_it_takes_memory() -> None:
    size = 512 * 1024
    chunked = b"2\r\n{}\r\n" * (size // 2) + b"0\r\n\r\n"
    script = Script(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked)
    async with listening(script) as port, opened(f"http://127.0.0.1:{port}") as session:
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match="more than 10000 chunks"):
                await session.get("http://x/", {})
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # What is read ahead takes some 3 MB, of a body of any size.
    assert peak < 16 * size


async def test_a_body_in_small_chunks_is_taken() -> None:
    chunked = b"64\r\n%s\r\n" % (b" " * 100) * 9_000 + b"0\r\n\r\n"
    script = Script(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked)
    assert await bodies(script, 1) == [b" " * 900_000]


@pytest.mark.parametrize("trailer", ["Retry-After: 9", "Date: never", "Content-Encoding: gzip"])
async def test_a_trailer_is_no_header(trailer: str) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\n{}\r\n0\r\n" + trailer.encode() + b"\r\n\r\n"
    )
    script = Script(answer, OK)
    async with listening(script) as port, opened(f"http://127.0.0.1:{port}") as session:
        found = await session.get("http://x/", {})
        assert (await session.get("http://x/", {})).body == b"{}"
    assert found.body == b"{}"
    assert dict(found.headers) == {"Transfer-Encoding": "chunked"}
    assert script.connections == 1


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"SSH-2.0 hello\r\n\r\n", "the answer is no HTTP: Bad status line"),
        (HEAD + b"Content-Length: 9\r\n\r\n{", "the connection ended within an answer"),
        (HEAD + b"Content-Le", "the connection ended before an answer"),
        (
            HEAD + b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
            "the answer is no HTTP: Invalid character in chunk size",
        ),
        (
            HEAD + b"X: " + b"a" * (MAX_HEADER + 1) + b"\r\n\r\n",
            f"the answer is no HTTP: Got more than {MAX_HEADER} bytes",
        ),
        (
            HEAD + b"Content-Encoding: br\r\nContent-Length: 1\r\n\r\n{",
            "Content-Encoding 'br' was not asked for",
        ),
        (
            HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
            "the answer is no gzip: ",
        ),
    ],
)
async def test_a_broken_answer_is_an_error_that_says_what_is_wrong(
    answer: bytes, text: str
) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with listening(broken) as port, opened(f"http://127.0.0.1:{port}") as session:
        with pytest.raises(OSError, match=re.escape(text)) as caught:
            await session.get("http://x/", {})
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


async def test_a_reason_that_is_no_utf_8_can_be_written() -> None:
    script = Script(b"HTTP/1.1 500 \xe9\r\nContent-Length: 0\r\n\r\n")
    async with listening(script) as port, opened(f"http://127.0.0.1:{port}") as session:
        answer = await session.get("http://x/", {})
    assert answer.reason.encode() == b"?"


async def test_a_request_never_leaves_the_origin() -> None:
    script = Script(OK, OK)
    async with listening(script) as port, opened(f"http://127.0.0.1:{port}") as session:
        await session.get("http://elsewhere.example\\@127.0.0.1:1/a%2Fb", {})
        await session.get("http://127.0.0.1:1//elsewhere.example/../a?b=%zz+#c", {})
    assert [request.split(b"\r\n")[0] for request in script.requests] == [
        b"GET /a%2Fb HTTP/1.1",
        b"GET //elsewhere.example/../a?b=%zz+ HTTP/1.1",
    ]


# Proxies


@asynccontextmanager
async def connecting_proxy(
    status: bytes, seen: list[bytes], tls: SSLContext | None = None
) -> AsyncIterator[int]:
    """A proxy that notes what it is asked, answers `status`, and passes on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        seen.append(asked)
        writer.write(b"HTTP/1.1 " + status + b"\r\n\r\n")
        if CONNECTED not in status:
            return
        port = int(asked.split()[1].rpartition(b":")[2])
        back, there = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
            except OSError:
                pass  # the other side has gone
            finally:
                sink.close()

        await asyncio.gather(pump(reader, there), pump(back, writer))

    async with listening(serve, tls) as port:
        yield port


def tls_of(authority: Authority) -> SSLContext:
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.server())
    return context


CONNECTED = b"200 Connection established"


@pytest.mark.parametrize(
    ("scheme", "answer"),
    [
        ("http", CONNECTED),
        ("https", CONNECTED),
        ("http", b"100 Continue\r\n\r\nHTTP/1.1 " + CONNECTED),
    ],
)
async def test_a_proxy_connects_us_and_sees_nothing_but_the_host(
    scheme: str, answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    script, seen = Script(OK, OK), list[bytes]()
    async with (
        listening(script, tls_of(authority)) as port,
        connecting_proxy(
            answer, seen, tls_of(authority) if scheme == "https" else None
        ) as proxy_port,
    ):
        address = f"{scheme}://some%20one:secret@127.0.0.1:{proxy_port}"
        monkeypatch.setenv("HTTPS_PROXY", address)
        monkeypatch.setenv("https_proxy", address)
        async with opened(f"https://localhost:{port}", proxy_for("localhost")) as session:
            for _ in range(2):
                assert (await session.get(f"https://localhost:{port}/secret", {})).body == b"{}"
    (asked,) = seen
    wanted = base64.b64encode(b"some one:secret")
    host = b"localhost:%d" % port
    first, *headers = asked.split(b"\r\n")
    assert first == b"CONNECT " + host + b" HTTP/1.1"
    assert {b"Host: " + host, b"Proxy-Authorization: Basic " + wanted} <= set(headers)
    assert b"/secret" not in asked
    assert script.connections == 1


async def test_a_proxy_that_refuses_is_named_and_its_password_is_not() -> None:
    async with connecting_proxy(b"407 Proxy Authentication Required", []) as port:
        by = URL(f"http://bob:secret@127.0.0.1:{port}")
        async with opened("https://localhost:1", by) as session:
            with pytest.raises(ConnectionError) as caught:
                await session.get("https://localhost:1/", {})
    assert str(caught.value) == (
        f"the proxy 127.0.0.1:{port} refused: 407 Proxy Authentication Required"
    )


async def test_a_tls_handshake_that_is_cut_off_is_called_so() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.transport.abort()

    async def proxied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await reader.read(100)

    for serve in (cut, reset, proxied):
        async with listening(serve) as port:
            proxy = URL(f"http://127.0.0.1:{port}") if serve is proxied else None
            async with opened(f"https://localhost:{port}", proxy) as session:
                with pytest.raises(SSLError) as caught:
                    await session.get("https://x/", {})
        assert str(caught.value) == "the connection ended within the TLS handshake"


async def test_a_certificate_of_another_authority_is_refused(tmp_path: Path) -> None:
    script = Script(OK)
    async with (
        listening(script, tls_of(Authority(tmp_path))) as port,
        opened(f"https://localhost:{port}") as session,
    ):
        with pytest.raises(SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            await session.get(f"https://localhost:{port}/", {})
        await asyncio.sleep(0.01)  # both ends close
    assert script.requests == []


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("proxy:3128", "http://proxy:3128"),
        ("http://[::1]:3128/", "http://[::1]:3128/"),
        ("https://proxy", "https://proxy"),
        ("http://a:b@proxy", "http://a:b@proxy"),
    ],
)
def test_proxies_are_read_from_the_environment(
    address: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", address)
    monkeypatch.setenv("no_proxy", "example.org")
    assert proxy_for("acc.westeurope.batch.azure.com") == URL(found)
    assert proxy_for("example.org") is None


@pytest.mark.parametrize("address", ["socks5://proxy:1", "http://user:secret@:80", "http://p:x"])
def test_what_is_no_proxy_is_said_without_showing_it(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", address)
    with pytest.raises(ValueError, match=r"^HTTPS_PROXY is no proxy's address: write"):
        proxy_for("acc.westeurope.batch.azure.com")
