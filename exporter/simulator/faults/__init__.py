"""Faults of the service and of the way to it, to be played by name on a served account."""

from exporter.simulator.faults.catalogue import CATALOGUE
from exporter.simulator.faults.control import FAULTS_PATH, fault_routes
from exporter.simulator.faults.controller import FAULTS, Faults, Rule
from exporter.simulator.faults.fault import Fault
from exporter.simulator.faults.outages import FAULT_SCENARIOS

__all__ = [
    "CATALOGUE",
    "FAULTS",
    "FAULTS_PATH",
    "FAULT_SCENARIOS",
    "Fault",
    "Faults",
    "Rule",
    "fault_routes",
]
