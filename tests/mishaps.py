"""What goes wrong between a simulated account and who asks it, for a while."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime

from aiohttp import web

from exporter.simulator import BatchError, Call
from exporter.simulator.error_answers import job_not_found
from exporter.simulator.faults.answers import body_of, with_body
from exporter.simulator.server import Proceed

FILE = "no file"
"""The state file is removed. What the process knows is written to a new one; if the process ends
first, the next one begins at 0."""

MISHAPS = ("stray 404", "errors", "missing", "no listing", "a day ahead", "a day behind", FILE)
"""One request on each job is answered `JobNotFound`; a third of the operations of jobs fail; a
fifth of all jobs, tasks and nodes are not in full listings; the jobs cannot be listed; the header
Date of all answers is wrong by a day."""

DAYS = {"a day ahead": 1, "a day behind": -1}


@dataclass
class Mishaps:
    """An interceptor. `kind`: one of MISHAPS, or nothing; the same until the next `begin`.

    `kinds`: what went wrong so far.
    """

    seed: int
    kind: str = ""
    kinds: set[str] = field(default_factory=set)
    _number: int = 0
    _lost: frozenset[str] = frozenset()

    def begin(self, kind: str = "") -> None:
        """From now on this goes wrong, and nothing else."""
        self.kind = kind
        self.kinds.add(kind)
        self._number += 1
        self._lost = frozenset()

    def hides(self, operation: str, *ids: str) -> bool:
        """Whether full listings of an operation lack an entry; the last id is its own."""
        return self.kind == "missing" and self._draw(operation, *map(str.lower, ids)) < 0.2

    def fails(self, call: Call) -> bool:
        """Whether this request is answered with an error that will pass."""
        if self.kind == "no listing":
            return call.operation == "Job_List"
        is_of_job = bool(call.ids) and call.operation != "Pool_Get"
        return (
            self.kind == "errors"
            and is_of_job
            and self._draw(call.operation, *map(str.lower, call.ids)) < 0.3
        )

    def _draw(self, *what: str) -> float:
        return zlib.crc32(repr((self.seed, self._number, what)).encode()) / 2**32

    async def __call__(
        self, request: web.Request, call: Call, proceed: Proceed
    ) -> web.StreamResponse:
        """Answer one request."""
        if self.fails(call):
            # No status that the client itself tries again, which would take real time.
            raise BatchError(501, "NotNow", "This is not possible now.")
        if self.kind == "stray 404" and call.ids and call.ids[0].lower() not in self._lost:
            self._lost |= {call.ids[0].lower()}
            raise job_not_found()
        response = await proceed()
        if self.kind in DAYS:
            date = parsedate_to_datetime(response.headers["Date"])
            wrong = date + timedelta(days=DAYS[self.kind])
            response.headers["Date"] = format_datetime(wrong, usegmt=True)
        is_changes = "$filter" in call.parameters and call.operation != "Job_List"
        if self.kind != "missing" or is_changes:
            return response
        body = body_of(response)
        answer = json.loads(body) if body else {}
        if not isinstance(answer.get("value"), list):
            return response
        answer["value"] = [
            each
            for each in answer["value"]
            if not self.hides(call.operation, *call.ids, str(each.get("id") or each.get("nodeId")))
        ]
        return with_body(response, json.dumps(answer).encode())
