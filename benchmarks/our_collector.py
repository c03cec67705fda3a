"""The exporter's own way from its configuration to what a scrape would show, in turns.

A real service polls everything once a turn: budget, client, decoding, folding, counters, text and
its own metrics. Only the scheduler has no part in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import re
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.harness import KEY_VARIABLE, answer
from exporter.config import Config, loader
from exporter.exposition.body import Format
from exporter.service.service import open_service


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collector", choices=("preparation_release", "tasks"))
    parser.add_argument("--account", required=True, help="JSON: endpoint, account, key")
    parser.add_argument("--resync", default="0s", help="0s: each listing is a full one")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # the simulated failures are logged there
    account = json.loads(options.account)
    asyncio.run(run(config_of(account, options.collector, options.resync)))


def config_of(account: Mapping[str, str], collector: str, resync: str) -> Config:
    """All jobs with one collector, and no limit that would be met."""
    os.environ[KEY_VARIABLE] = account["key"]
    auth = {"method": "shared_key", "key_env": KEY_VARIABLE}
    defaults = {"idle_interval": "0s", "resync_interval": resync, "collect": [collector]}
    named = {
        "name": account["account"],
        "endpoint": account["endpoint"],
        "auth": auth,
        "requests_per_second": 100_000,
        "request_timeout": "60s",
        "pool_nodes": False,
    }
    return loader.parse(json.dumps({"defaults": defaults, "accounts": [named]}), "", Path())


async def run(config: Config) -> None:
    """`poll` everything; `forget` what is known; let a `minute` pass; tell what is `shown`."""
    minutes = 0

    def now() -> float:
        return time.time() + 60.0 * minutes

    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(open_service(config, now=now))

        async def turn(command: str) -> Mapping[str, Any]:
            nonlocal service, minutes
            if command == "forget":
                await stack.aclose()
                service = await stack.enter_async_context(open_service(config, now=now))
            elif command == "minute":
                minutes += 1
            elif command == "shown":
                text = service.exposition.body(Format.TEXT).plain.decode()
                return {"total": total(text), "known": known(text)}
            else:
                await service.run_once()
            return {}

        await answer(turn)


def total(text: str) -> float:
    """The nodes by state of all jobs together."""
    names = re.compile(r"^azure_batch_job_(?:preparation|release)_tasks\{.* (\S+)$", re.MULTILINE)
    return sum(map(float, names.findall(text)))


def known(text: str) -> list[str]:
    """The lines of jobs; not what depends on when it was read, or on what was read before."""
    lines = re.compile(r"^azure_batch_job_(?!last|\w+_total\b).*$", re.MULTILINE)
    return sorted(lines.findall(text))


if __name__ == "__main__":
    main()
