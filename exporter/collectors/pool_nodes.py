"""Nodes of each pool by state (Account_ListPoolNodeCounts): one request for every ten pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from msgspec.structs import replace

from exporter.batch.client import BatchClient
from exporter.batch.models import PoolNodeCounts, enum_value
from exporter.batch.spellings import MAX_LENGTH
from exporter.exposition.metric import Metric, Samples

OPERATION = "Account_ListPoolNodeCounts"

STATES = (
    "creating",
    "deallocated",
    "deallocating",
    "idle",
    "leavingpool",
    "offline",
    "preempted",
    "rebooting",
    "reimaging",
    "running",
    "starting",
    "starttaskfailed",
    "unknown",
    "unusable",
    "upgradingos",
    "waitingforstarttask",
)

MAX_POOLS = 2_000
"""Pools of an account. Each makes 36 series."""

_TOO_MANY_POOLS = f"the account has more than {MAX_POOLS} pools, or no pool has such an id"

PoolNodes = tuple[PoolNodeCounts, ...]
"""The node counts of each pool, in the order of the pool ids."""


async def read(client: BatchClient) -> PoolNodes:
    """Ask for the node counts of all pools of the account."""
    pools: dict[str, PoolNodeCounts] = {}
    async for page in client.list_pool_node_counts():
        for pool in page:
            pool_id = client.spellings.pool(pool.pool_id or "")
            if pool_id in pools or (len(pools) < MAX_POOLS and len(pool_id) <= MAX_LENGTH):
                pools[pool_id] = replace(pool, pool_id=pool_id)
            else:
                client.left_out(OPERATION, [_TOO_MANY_POOLS])
    return tuple(pools[pool_id] for pool_id in sorted(pools))


def _samples(pools: PoolNodes) -> Samples:
    for pool in pools:
        for kind, counts in (("dedicated", pool.dedicated), ("low_priority", pool.low_priority)):
            for state, number in _by_state(counts or {}).items():
                yield (pool.pool_id or "", kind, state), number


def _by_state(counts: Mapping[str, int | None]) -> Mapping[str, int]:
    """Counts under the names of ComputeNodeState; a state that is new to us is `other`."""
    states: Counter[str] = Counter()
    for name, number in counts.items():
        state = enum_value(name, STATES)
        if number is not None and state is not None and name != "total":
            states[state] += number
    return states


METRICS: tuple[Metric[PoolNodes], ...] = (
    Metric(
        "azure_batch_pool_nodes",
        "gauge",
        "Nodes of the pool by kind and state",
        "Account_ListPoolNodeCounts dedicated, lowPriority",
        ("pool_id", "kind", "state"),
        _samples,
    ),
)
