"""What an engineer would write in an afternoon: task counts of all jobs of an account, as metrics.

It is the baseline of benchmarks/paced.py. Each job has a task of its own, which polls, renders the
lines of the job and sleeps until the next poll; a scrape joins the lines. There is no retry, no
request budget, no counter and no reload.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Mapping
from email.utils import formatdate

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

log = logging.getLogger(__name__)

API_VERSION = "2024-07-01.20.0"
FAMILIES = (
    "azure_batch_job_tasks",
    "azure_batch_job_completed_tasks",
    "azure_batch_job_task_slots",
    "azure_batch_job_completed_task_slots",
)


class Job(msgspec.Struct):
    id: str


class Jobs(msgspec.Struct):
    value: list[Job]
    next_link: str | None = msgspec.field(default=None, name="odata.nextLink")


class Counts(msgspec.Struct):
    active: int
    running: int
    completed: int
    succeeded: int
    failed: int


class TaskCounts(msgspec.Struct, rename="camel"):
    task_counts: Counts
    task_slot_counts: Counts


class Poller:
    """Polls the jobs of one account and keeps the lines of each family by job."""

    def __init__(self, session: aiohttp.ClientSession, account: Mapping[str, str]) -> None:
        self.session = session
        self.name, self.endpoint = account["account"], account["endpoint"]
        self.key = base64.b64decode(account["key"])
        self.lines: dict[str, dict[str, bytes]] = {family: {} for family in FAMILIES}
        self.jobs = msgspec.json.Decoder(Jobs)
        self.counts = msgspec.json.Decoder(TaskCounts)

    async def get(self, path: str, parameters: Mapping[str, str]) -> bytes:
        """The body of an answer; the request is signed with the account's key."""
        date = formatdate(usegmt=True)
        signed = "".join(f"\n{name}:{parameters[name]}" for name in sorted(parameters))
        text = f"GET{12 * chr(10)}ocp-date:{date}\n/{self.name}{path}{signed}"
        digest = hmac.digest(self.key, text.encode(), hashlib.sha256)
        signature = base64.b64encode(digest).decode()
        headers = {"ocp-date": date, "Authorization": f"SharedKey {self.name}:{signature}"}
        async with self.session.get(
            self.endpoint + path, params=parameters, headers=headers
        ) as response:
            response.raise_for_status()
            return await response.read()

    async def list_jobs(self) -> list[str]:
        """The ids of all jobs."""
        found: list[str] = []
        parameters = {"api-version": API_VERSION, "$select": "id"}
        while True:
            page = self.jobs.decode(await self.get("/jobs", parameters))
            found += [job.id for job in page.value]
            if page.next_link is None:
                return found
            query = URL(page.next_link).query
            parameters = {name: str(value) for name, value in query.items()}

    async def watch(self, job_id: str, delay: float, interval: float) -> None:
        """Poll one job for ever."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay
        while True:
            await asyncio.sleep(due - loop.time())
            try:
                path = f"/jobs/{job_id}/taskcounts"
                self.show(job_id, await self.get(path, {"api-version": API_VERSION}))
            except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
                log.exception("job %s was not polled", job_id)
            due = max(due + interval, loop.time())

    def show(self, job_id: str, body: bytes) -> None:
        """Render what a poll brought."""
        found = self.counts.decode(body)
        labels = f'account="{self.name}",job_id="{job_id}"'
        for counts, states, results in (
            (found.task_counts, FAMILIES[0], FAMILIES[1]),
            (found.task_slot_counts, FAMILIES[2], FAMILIES[3]),
        ):
            self.lines[states][job_id] = (
                f'{states}{{{labels},state="active"}} {counts.active}\n'
                f'{states}{{{labels},state="running"}} {counts.running}\n'
                f'{states}{{{labels},state="completed"}} {counts.completed}\n'
            ).encode()
            self.lines[results][job_id] = (
                f'{results}{{{labels},result="success"}} {counts.succeeded}\n'
                f'{results}{{{labels},result="failure"}} {counts.failed}\n'
            ).encode()

    async def metrics(self, _: web.Request) -> web.Response:
        """All families."""
        text = b"".join(
            f"# HELP {family} Tasks.\n# TYPE {family} gauge\n".encode() + b"".join(lines.values())
            for family, lines in self.lines.items()
        )
        return web.Response(body=text, content_type="text/plain")


async def run(account: Mapping[str, str], interval: float, port: int) -> None:
    """List the jobs once, then poll each at its own pace and serve the metrics."""
    async with aiohttp.ClientSession() as session:
        poller = Poller(session, account)
        app = web.Application()
        app.router.add_get("/metrics", poller.metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        job_ids = await poller.list_jobs()
        gap = interval / len(job_ids)
        async with asyncio.TaskGroup() as group:
            for number, job_id in enumerate(job_ids):
                group.create_task(poller.watch(job_id, number * gap, interval))


def main() -> None:
    """Poll until the process ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--account", required=True, help="JSON: endpoint, account, key")
    parser.add_argument("--interval", type=float, required=True, help="seconds")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    asyncio.run(run(json.loads(options.account), options.interval, options.port))


if __name__ == "__main__":
    main()
