"""Names of the metric tables that the store shows snapshots in. Collectors name the others."""

from __future__ import annotations

ACCOUNT_HEALTH = "account health"
JOB_HEALTH = "job health"
SELECTED_JOBS = "selected jobs"
JOB = "job"
POOL_NODES = "pool nodes"

ACCOUNT_COUNTERS = "account counters"
HISTOGRAMS = "histograms"
"""Histograms and ends of jobs: of an account's groups, and of the account for its other jobs."""


def counters_of(collector: str) -> str:
    """The name of the table of a collector's counters."""
    return f"{collector} counters"
