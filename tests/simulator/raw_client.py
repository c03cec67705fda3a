"""A client that knows no HTTP library: what it sees is what came through the socket."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from exporter.simulator import Simulation

from .conftest import NOTHING, signed

NO_LIMIT = 1 << 40


@dataclass(frozen=True)
class Seen:
    """One answer. `ended`: by `close`, `reset`, `silence`, or by us, as it exceeded the `limit`."""

    raw: bytes
    ended: str

    @property
    def start(self) -> list[str]:
        """Status line and headers."""
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")

    @property
    def status(self) -> int:
        return int(self.start[0].split()[1])

    @property
    def headers(self) -> dict[str, str]:
        """By names in lower case."""
        pairs = (line.partition(": ") for line in self.start[1:])
        return {name.lower(): value for name, _, value in pairs}

    @property
    def rest(self) -> bytes:
        """All behind the headers, as it came."""
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def body(self) -> bytes:
        """The body, of whole chunks."""
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rest
        body, rest = b"", self.rest
        while True:
            size, _, rest = rest.partition(b"\r\n")
            if not size or int(size, 16) == 0:
                return body
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def fetch(
    simulation: Simulation,
    url: str,
    headers: Mapping[str, str] = NOTHING,
    *,
    limit: int = NO_LIMIT,
    patience: float = 60.0,
) -> Seen:
    """Ask for a URL, or a path, and read for as long as anything comes within the `patience`."""
    url = url if url.startswith("http") else simulation.endpoint + url
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"GET {target} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in signed(simulation, url, headers).items()]
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    pieces: list[bytes] = []
    size, ended = 0, "limit"
    try:
        writer.write("\r\n".join([*lines, "\r\n"]).encode())
        while size <= limit:
            async with asyncio.timeout(patience):
                piece = await reader.read(1 << 20)
            if not piece:
                ended = "close"
                break
            pieces.append(piece)
            size += len(piece)
    except TimeoutError:
        ended = "silence"
    except ConnectionResetError:
        ended = "reset"
    finally:
        writer.transport.abort()
    return Seen(b"".join(pieces), ended)
