"""Discovery: which jobs of an account are watched, read from the service."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.batch.client import BatchClient
from exporter.batch.models import Job
from exporter.collectors import jobs
from exporter.polling.selection import Scope, listing_filter, needs_listing, select_within
from exporter.state.watched_job import SelectedJobs


async def discover(
    client: BatchClient, scope: Scope, known: Mapping[str, Job], now: float
) -> SelectedJobs:
    """List the jobs that the rules may want, get those they name, and select.

    `known`: jobs that are watched already, by id in lower case. `now`: Unix seconds.
    """
    filter_ = listing_filter(scope.rules, now) if needs_listing(scope.rules) else None
    named = [rule.id for rule in scope.rules if rule.id is not None]
    found = await jobs.read(client, filter_, named, scope.owns, known)
    return select_within(scope, found, known, now)
