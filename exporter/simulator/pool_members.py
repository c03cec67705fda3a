"""The members of pools and of their node counts on the wire, as `members.py` has the others."""

from types import MappingProxyType

from exporter.simulator.members import Table, machine, nothing
from exporter.simulator.model import NODE_STATES, Pool
from exporter.simulator.ticks import MINUTE, duration, etag, timestamp
from exporter.simulator.wire import View


def pool_url(pool: Pool, view: View) -> str:
    """The pool's own URL."""
    return f"{view.base}/pools/{pool.id}"


POOL_MEMBERS: Table = MappingProxyType(
    {
        "id": lambda pool, _: pool.id,
        "displayName": nothing,
        "url": pool_url,
        "eTag": lambda pool, _: etag(pool.modified),
        "lastModified": lambda pool, _: timestamp(pool.modified),
        "creationTime": lambda pool, _: timestamp(pool.created),
        "state": lambda pool, _: pool.state,
        "stateTransitionTime": lambda pool, _: timestamp(pool.state_changed),
        "allocationState": lambda pool, _: pool.allocation_state,
        "allocationStateTransitionTime": lambda pool, _: timestamp(pool.allocation_changed),
        "vmSize": lambda pool, _: pool.vm_size,
        "resizeTimeout": lambda pool, _: None if pool.auto_scale else duration(15 * MINUTE),
        "currentDedicatedNodes": lambda pool, _: pool.current("dedicated"),
        "currentLowPriorityNodes": lambda pool, _: pool.current("low_priority"),
        "targetDedicatedNodes": lambda pool, _: pool.targets["dedicated"],
        "targetLowPriorityNodes": lambda pool, _: pool.targets["low_priority"],
        "enableAutoScale": lambda pool, _: pool.auto_scale,
        "autoScaleFormula": lambda pool, _: (
            "$TargetDedicatedNodes = $PendingTasks.GetSample(1) / 4;" if pool.auto_scale else None
        ),
        "autoScaleEvaluationInterval": lambda pool, _: (
            duration(5 * MINUTE) if pool.auto_scale else None
        ),
        "enableInterNodeCommunication": lambda *_: False,
        "taskSlotsPerNode": lambda pool, view: (
            pool.slots_per_node if view.version >= "2020-09-01" else None
        ),
        "maxTasksPerNode": lambda pool, view: (
            pool.slots_per_node if view.version < "2020-09-01" else None
        ),
        "taskSchedulingPolicy": lambda *_: {"nodeFillType": "Spread"},
        "virtualMachineConfiguration": lambda *_: machine(),
        **dict.fromkeys(
            (
                "autoScaleRun",
                "resizeErrors",
                "startTask",
                "networkConfiguration",
                "metadata",
                "mountConfiguration",
                "userAccounts",
                "identity",
                "upgradePolicy",
                "applicationPackageReferences",
                "applicationLicenses",
                "certificateReferences",
                "cloudServiceConfiguration",
                "resourceTags",
                "currentNodeCommunicationMode",
                "targetNodeCommunicationMode",
                "vmSkuProfile",
                "stats",
            ),
            nothing,
        ),
    }
)


def _node_counts(pool: Pool, kind: str, view: View) -> dict[str, int]:
    counts = pool.node_counts[kind]
    shown = {
        state: counts.get(state, 0)
        for state in NODE_STATES
        if view.version >= _STATE_SINCE.get(state, "")
    }
    shown["total"] = sum(shown.values())
    return shown


_STATE_SINCE = MappingProxyType(
    {"upgradingOS": "2024-02-01", "deallocated": "2024-07-01", "deallocating": "2024-07-01"}
)

NODE_COUNTS_MEMBERS: Table = MappingProxyType(
    {
        "poolId": lambda pool, _: pool.id,
        "dedicated": lambda pool, view: _node_counts(pool, "dedicated", view),
        "lowPriority": lambda pool, view: _node_counts(pool, "low_priority", view),
    }
)
