"""A served exporter that knows many jobs, as if it had polled them; it polls nothing.

python -m tests.filled JOBS    prints the URL and serves until SIGTERM
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import sys
import time
from pathlib import Path

from exporter.batch.errors import ServiceError
from exporter.batch.models import (
    Counts,
    FailureInfo,
    Job,
    JobExecutionInfo,
    NodeTaskStatus,
    SpecialTaskExecutionInfo,
    TaskCountsResult,
)
from exporter.config import Config, Rule, loader
from exporter.service.process import stop_on_signals
from exporter.service.service import open_service
from exporter.state.store import Store
from exporter.state.watched_job import SelectedJobs, WatchedJob
from exporter.web.app import build_app
from exporter.web.server.listener import listen
from tools.sample_job import nodes_read

ACCOUNT = "filled"
CREATED = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
STARTED = CREATED.isoformat()


def config_of() -> Config:
    """A configuration of an account that nobody answers for."""
    os.environ["FILLED_KEY"] = "a2V5"
    account = {
        "name": ACCOUNT,
        "endpoint": "http://127.0.0.1:9",
        "auth": {"method": "shared_key", "key_env": "FILLED_KEY"},
        "max_jobs": 100_000,
        "max_series": 10_000_000,
    }
    return loader.parse(json.dumps({"accounts": [account]}), "filled", Path())


def fill(store: Store, count: int, now: float) -> None:
    """Put so many jobs there: number n has n tasks that wait, every 100th fails to be polled.

    On the one node of every 50th preparation failed.
    """
    rule = Rule(id_regex=".*")
    jobs = [
        Job(
            f"job-{number:05d}",
            display_name=f"Frame {number}" if number % 10 == 0 else None,
            state="active" if number % 4 else "completed",
            creation_time=(CREATED + dt.timedelta(seconds=number)).isoformat(),
            priority=0,
            execution_info=JobExecutionInfo(start_time=STARTED, pool_id=f"pool-{number % 5}"),
        )
        for number in range(count)
    ]
    watched = tuple(WatchedJob(job, rule) for job in jobs)
    store.select(ACCOUNT, SelectedJobs(watched), now, now)
    good = SpecialTaskExecutionInfo(state="completed", result="success", start_time=STARTED)
    why = FailureInfo("usererror", "FailureExitCode", "The task exited with 1")
    bad = SpecialTaskExecutionInfo(
        state="completed",
        result="failure",
        start_time=STARTED,
        end_time=STARTED,
        exit_code=1,
        failure_info=why,
    )
    for number, job in enumerate(jobs):
        counts = Counts(number, number % 7, number % 50, number % 50, 0)
        result = TaskCountsResult(task_counts=counts, task_slot_counts=counts)
        store.put_reading(ACCOUNT, job, "task_counts", result, None, now)
        run = good if number % 50 else bad
        nodes = (NodeTaskStatus(job.pool_id, f"node-{number}", run, None),)
        reading = nodes_read(job.pool_id, nodes, now)
        store.put_reading(ACCOUNT, job, "preparation_release", reading, None, now)
        if number % 100 == 0:
            error = ServiceError(500, "InternalError", "Something went wrong.")
            store.fail(ACCOUNT, "task_counts", job, error, since=0.0, stale=False)
    store.flush()


async def main(count: int) -> None:
    """Serve until asked to end."""
    stop = stop_on_signals()
    async with open_service(config_of()) as service:
        fill(service.store, count, time.time())
        server = await listen(build_app(service, "/metrics"), (("127.0.0.1", 0),))
        print(server.urls[0], flush=True)
        await stop.wait()
        await server.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
