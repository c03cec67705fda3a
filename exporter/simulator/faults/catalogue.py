"""All faults by name."""

from collections.abc import Mapping
from types import MappingProxyType

from exporter.simulator.faults.bodies import BODIES
from exporter.simulator.faults.connections import CONNECTIONS
from exporter.simulator.faults.dates import DATES
from exporter.simulator.faults.fault import Fault
from exporter.simulator.faults.json_members import MEMBERS
from exporter.simulator.faults.pages import PAGES
from exporter.simulator.faults.sizes import SIZES
from exporter.simulator.faults.statuses import STATUSES
from exporter.simulator.faults.tokens import TOKENS

CATALOGUE: Mapping[str, Fault] = MappingProxyType(
    {
        fault.name: fault
        for table in (STATUSES, BODIES, MEMBERS, SIZES, CONNECTIONS, PAGES, DATES, TOKENS)
        for fault in table
    }
)
