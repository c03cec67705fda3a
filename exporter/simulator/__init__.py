"""A simulated Azure Batch account: a world that lives by itself, behind the service's REST API.

It shares no code with the exporter's client, so that each can prove the other.
"""

from exporter.simulator.clock import Clock
from exporter.simulator.entra import Application, FederatedCredential
from exporter.simulator.error_answers import BatchError
from exporter.simulator.faults import (
    CATALOGUE,
    FAULT_SCENARIOS,
    FAULTS_PATH,
    Faults,
    Rule,
    fault_routes,
)
from exporter.simulator.identity import Identity, serve_identity
from exporter.simulator.identity_control import IDENTITY_PATH
from exporter.simulator.identity_failures import FAILURES, Failure, Failures
from exporter.simulator.ledger import Ledger
from exporter.simulator.operations import Call
from exporter.simulator.scale import many_jobs, many_records, many_tasks, short_jobs
from exporter.simulator.scenario import Scenario
from exporter.simulator.scenario_control import (
    SCENARIO_PATH,
    SUMMARIES,
    begin_faults,
    scenario_routes,
    world_of,
)
from exporter.simulator.scenarios import SCENARIOS
from exporter.simulator.server import Interceptor, Proceed, Simulation, build_app, serve
from exporter.simulator.sign_in_scenarios import SIGN_IN_SCENARIOS, begin_sign_in
from exporter.simulator.signatures import Account, TokenRegistry, make_account
from exporter.simulator.world import World

__all__ = [
    "CATALOGUE",
    "FAILURES",
    "FAULTS_PATH",
    "FAULT_SCENARIOS",
    "IDENTITY_PATH",
    "SCENARIOS",
    "SCENARIO_PATH",
    "SIGN_IN_SCENARIOS",
    "SUMMARIES",
    "Account",
    "Application",
    "BatchError",
    "Call",
    "Clock",
    "Failure",
    "Failures",
    "Faults",
    "FederatedCredential",
    "Identity",
    "Interceptor",
    "Ledger",
    "Proceed",
    "Rule",
    "Scenario",
    "Simulation",
    "TokenRegistry",
    "World",
    "begin_faults",
    "begin_sign_in",
    "build_app",
    "fault_routes",
    "make_account",
    "many_jobs",
    "many_records",
    "many_tasks",
    "scenario_routes",
    "serve",
    "serve_identity",
    "short_jobs",
    "world_of",
]
