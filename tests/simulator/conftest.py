"""A served account with frozen time, and a client that signs for it."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import pytest
from yarl import URL

from exporter.simulator import SCENARIOS, Clock, Simulation, World, make_account, serve
from exporter.simulator.signatures import SignedRequest, signature, string_to_sign

VERSION = "2024-07-01.20.0"
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Reply:
    """One response, its body read."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        return str(self.json["code"])


def signed(
    simulation: Simulation, url: str, headers: Mapping[str, str] = NOTHING, method: str = "GET"
) -> dict[str, str]:
    """The headers of a request, with a signature where they have no credentials."""
    parts = urlsplit(url)
    headers = {"ocp-date": formatdate(usegmt=True), **headers}
    lowered = {name.lower(): value for name, value in headers.items()}
    name = simulation.account_name
    text = string_to_sign(name, SignedRequest(method, parts.path, parts.query, lowered))
    key = make_account(simulation.world.seed)
    return {"Authorization": f"SharedKey {name}:{signature(key, text)}", **headers}


class BatchClient:
    """Signs each request with the account's key and sends URLs byte for byte."""

    def __init__(self, simulation: Simulation, session: aiohttp.ClientSession) -> None:
        self.simulation = simulation
        self._session = session

    async def send(self, url: str, headers: Mapping[str, str], method: str = "GET") -> Reply:
        """A request as it is: no signature is added."""
        async with self._session.request(
            method, URL(url, encoded=True), headers=headers
        ) as response:
            return Reply(response.status, response.headers, await response.text())

    async def get(
        self, path: str, headers: Mapping[str, str] = NOTHING, method: str = "GET"
    ) -> Reply:
        """`path` with its query, or an absolute URL as next links are."""
        url = path if path.startswith("http") else self.simulation.endpoint + path
        return await self.send(url, signed(self.simulation, url, headers, method), method)

    async def ask(
        self,
        path: str,
        version: str = VERSION,
        headers: Mapping[str, str] = NOTHING,
        **query: object,
    ) -> Reply:
        """A GET with api-version and query; `filter`, `select` and `expand` get their dollar."""
        dollar = {"filter", "select", "expand", "skiptoken"}
        parameters = {
            f"${name}" if name in dollar else name: str(value) for name, value in query.items()
        }
        text = "".join(f"&{name}={quote(value)}" for name, value in parameters.items())
        return await self.get(f"{path}?api-version={version}{text}", headers)

    async def items(self, path: str, **query: object) -> list[Any]:
        """All items of all pages."""
        reply = await self.ask(path, **query)
        items = []
        while True:
            assert reply.status == 200, reply.text
            items += reply.json["value"]
            link = reply.json.get("odata.nextLink")
            if link is None:
                return items
            reply = await self.get(link)


@pytest.fixture(scope="session")
def old_world() -> World:
    """An account that nothing advances: shared, so tests must only read it."""
    return World(SCENARIOS["steady"], seed=7, jobs=40, nodes=12)


@pytest.fixture
async def client(old_world: World) -> AsyncIterator[BatchClient]:
    """A signing client of that account."""
    clock = Clock(old_world.now, speed=0)
    async with serve(old_world, clock) as simulation, aiohttp.ClientSession() as session:
        yield BatchClient(simulation, session)
