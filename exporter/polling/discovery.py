"""Discovery: which jobs of an account are watched, read from the service."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from exporter.batch.client import BatchClient
from exporter.batch.models import Job
from exporter.collectors import jobs
from exporter.config import Account
from exporter.config.shard import Shard
from exporter.polling.selection import listing_filter, metadata_names, select
from exporter.state.watched_job import SelectedJobs


async def discover(
    client: BatchClient, account: Account, shard: Shard, known: Mapping[str, Job], now: float
) -> SelectedJobs:
    """List the jobs that the rules may want, get those they name, and select.

    `known`: jobs that are watched already, by id in lower case. They stay past `max_jobs` too: a
    series that comes and goes is worse than one that never was. `now`: Unix seconds.
    """
    rules, most = account.jobs, account.max_jobs
    named = [rule.id for rule in rules if rule.id is not None]
    owns = partial(shard.owns, account.name)
    found = await jobs.read(client, listing_filter(rules, now), named, owns, known)
    selected = select(rules, found, now)
    dropped = max(0, len(selected) - most)
    if dropped:
        known_first = sorted(selected, key=lambda watched: watched.job.id.lower() not in known)
        selected = tuple(sorted(known_first[:most], key=lambda watched: watched.job.id))
    return SelectedJobs(selected, dropped, metadata_names(rules))
