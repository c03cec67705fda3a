"""Sending an unchanged /metrics of a million series, against writing the same bytes to a socket.

Both are processes of their own, and the client reads from each in turns and throws away what it
reads. The bare server has the whole answer ready and hands it to the socket at once.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from benchmarks.content import SERIES_OF_A_JOB, polled, show
from benchmarks.harness import Process, answer, head, median, row
from benchmarks.stall import CONFIG
from exporter.config import Config
from exporter.exposition.body import Format, gzip_parts
from exporter.service.service import Service, open_service
from exporter.web.app import build_app

ENCODINGS = ("identity", "gzip")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="a tenth of the series, three rounds")
    parser.add_argument("--serve", choices=("bare", "exporter"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.small:
        options.series, options.rounds = 100_000, 3
    if options.serve:
        asyncio.run(serve(options.serve, -(-options.series // SERIES_OF_A_JOB)))
        return
    times: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        urls = {
            way: stack.enter_context(
                Process("benchmarks.million", f"--serve={way}", f"--series={options.series}")
            ).ready["url"]
            for way in ("bare", "exporter")
        }
        size = {encoding: fetch(urls["exporter"], encoding)[0] for encoding in ENCODINGS}
        for _ in range(options.rounds):
            for way, url in urls.items():
                for encoding in ENCODINGS:
                    taken = fetch(url, encoding)[1]
                    times.setdefault((way, encoding), []).append(taken * 1000)
    print(f"{options.series} series: ms from the request to the last byte\n")
    head("/metrics", "bytes", "written to a socket", "this exporter", "times as long")
    for encoding in ENCODINGS:
        bare, ours = (median(times[way, encoding]) for way in ("bare", "exporter"))
        row(encoding, str(size[encoding]), f"{bare:.0f}", f"{ours:.0f}", f"{ours / bare:.2f}")


def fetch(url: str, encoding: str) -> tuple[int, float]:
    """Bytes of an answer, and seconds until it was there."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    buffer = bytearray(1 << 20)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        started = time.perf_counter()
        connection.sendall(
            f"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {encoding}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        size = 0
        while count := connection.recv_into(buffer):
            size += count
    return size, time.perf_counter() - started


async def serve(way: str, jobs: int) -> None:
    """Serve the metrics of so many jobs."""
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(open_service(Config.model_validate(CONFIG)))
        for number in range(jobs):
            show(service.exposition, polled(number, 0))
        start = bare if way == "bare" else exporter
        port = await start(stack, service)

        async def nothing(_: str) -> dict[str, Any]:
            return {}

        await answer(nothing, {"url": f"http://127.0.0.1:{port}"})


async def exporter(stack: AsyncExitStack, service: Service) -> int:
    """This program's own application; gives its port."""
    runner = web.AppRunner(build_app(service, "/metrics"))
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    return int(site._server.sockets[0].getsockname()[1])  # type: ignore[attr-defined]


async def bare(_: AsyncExitStack, service: Service) -> int:
    """A server that writes what it has; gives its port."""
    body = service.exposition.body(Format.TEXT)
    own = service.telemetry.text(Format.TEXT, body.series)
    answers = {"identity": body.plain + own, "gzip": b"".join(gzip_parts(body, own))}

    class Bare(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.write: Callable[[bytes], None] = transport.write
            self.close = transport.close

        def data_received(self, data: bytes) -> None:
            text = answers["gzip" if b"gzip" in data else "identity"]
            self.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text))
            self.write(text)
            self.close()

    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0)
    return int(server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    main()
