"""A Batch account that answers what a test tells it to, over a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID = "a6da6a26-9115-425c-af41-5241ed66f789"


@dataclass
class FakeBatch:
    """`answers`: by path; the last of a list is repeated. `requests`: all that came, in order."""

    endpoint: str = ""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[web.Request] = field(default_factory=list)

    def on(self, path: str, *answers: Answer) -> None:
        """Answer requests to `path` with these in turn."""
        self.answers[path] = list(answers)

    def json(self, path: str, *bodies: Any) -> None:
        """Answer requests to `path` with these bodies in turn, status 200."""
        self.on(path, *(reply(body) for body in bodies))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        self.requests.append(request)
        answers = self.answers.get(request.raw_path.partition("?")[0])
        if not answers:
            return await batch_error(404, "JobNotFound", "The specified job does not exist.")(
                request
            )
        return await (answers.pop(0) if len(answers) > 1 else answers[0])(request)


def reply(
    body: Any, status: int = 200, headers: dict[str, str] | None = None, reason: str | None = None
) -> Answer:
    """An answer with a body: JSON, or text or bytes as they are."""
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    raw = content.encode() if isinstance(content, str) else content

    async def answer(_: web.Request) -> web.Response:
        return web.Response(
            body=raw,
            status=status,
            reason=reason,
            headers={"Content-Type": "application/json; odata=minimalmetadata", **(headers or {})},
        )

    return answer


def batch_error(
    status: int,
    code: str,
    message: str,
    values: list[dict[str, str]] | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """An error as the service writes it."""
    body: dict[str, Any] = {
        "odata.metadata": "https://endpoint/$metadata#errors/@Element",
        "code": code,
        "message": {
            "lang": "en-US",
            "value": f"{message}\nRequestId:{REQUEST_ID}\nTime:2024-01-05T07:10:22.4342943Z",
        },
    }
    if values:
        body["values"] = values
    return reply(body, status, {"request-id": REQUEST_ID, **(headers or {})})


@asynccontextmanager
async def fake_batch() -> AsyncIterator[FakeBatch]:
    """A fake account that listens on a loopback port."""
    fake = FakeBatch()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        fake.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield fake
    finally:
        await runner.cleanup()
