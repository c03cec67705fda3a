"""`simulate`: a simulated Batch account alone, for other clients."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from exporter.cli import flags

if TYPE_CHECKING:
    import ssl

    from exporter.simulator import Simulation

# As the simulator has them. The help does not import it: that takes 0.3 s of CPU.
SCENARIOS = {
    "steady": "A healthy account: work flows, a few things fail, as everywhere.",
    "prep-storm": "An image breaks preparation on every node: tasks wait, no task fails.",
    "spot-eviction": "Low-priority nodes preempted in waves: requeued tasks, preparation anew.",
    "flaky-tasks": "Many tasks fail in many ways; most are retried, many of them in vain.",
    "flaky-prep": "Preparation fails on about half of the nodes; the others do the work.",
    "failing-release": "Most release tasks fail, so nodes keep what jobs left on them.",
    "failing-tasks": "Nine of ten tasks fail, by their own fault and by the service's.",
    "blocked-tasks": "The first task of each job fails, and all the others depend on it.",
    "large-tasks": "Tasks ask for more slots than any node has: they wait beside idle nodes.",
    "stalled": "Scheduling stops: tasks wait beside idle nodes, and nothing fails.",
    "unusable-nodes": "One node after the other became unusable: tasks wait, nothing runs.",
    "start-task-failed": "The start task fails on every node, so that none takes a task.",
    "backlog": "Far more tasks than slots: they run, but most wait for very long.",
    "leaked-jobs": "Jobs whose tasks are all completed stay active: nobody ends them.",
    "job-storms": "Jobs of 5 to 50 seconds, and storms of them: most are never seen active.",
    "restless-users": "Active jobs are deleted and made again at once; tasks go as they succeed.",
    "odd-records": "Runs without a result, containers, auto pools that cannot be made.",
    "throttled": "Half of the requests get 429, every other minute.",
    "outage": "Every request is answered 503, or its connection reset.",
    "auth-expired": "No request is authenticated any more.",
    "no-access": "Every request is refused: no role allows it.",
    "garbage": "Three of ten requests meet a fault of the catalogue, drawn by chance.",
}

SCENARIOS_HELP = "scenarios:\n" + "\n".join(
    textwrap.fill(f"  {name:17}  {summary}", 79, subsequent_indent=" " * 21)
    for name, summary in SCENARIOS.items()
)

HELP = f"""\
Serves the REST API of a simulated Batch account: jobs are created and deleted,
tasks are queued, run, fail and are retried. Prints endpoint, account name and
key. It is read-only, and keeps everything in memory. Its times, the header Date
among them, are those of the simulation.

examples:
  azure-batch-exporter simulate --listen-address=127.0.0.1:10226
      on a fixed port
  azure-batch-exporter simulate --jobs=500 --nodes=40 --speed=10
      larger, and faster
  azure-batch-exporter simulate --tls
      over https; SSL_CERT_FILE is to name the file that is printed

{SCENARIOS_HELP}

{flags.EXIT_STATUS}
"""

_ANYWHERE = "0.0.0.0"  # noqa: S104 - only where the user gave an address without a host


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_simulator_flags(parser, "--listen-address")
    help_ = "the same seed gives the same account (default: %(default)s)"
    parser.add_argument("--seed", help=help_, type=int, default=1, metavar="N")
    positive = flags.whole_number(1)
    help_ = "number of jobs at any time (default: %(default)s)"
    parser.add_argument("--jobs", help=help_, type=positive, default=12, metavar="N")
    help_ = "number of nodes in each pool (default: %(default)s)"
    parser.add_argument("--nodes", help=help_, type=positive, default=8, metavar="N")
    help_ = "simulated seconds to a real one (default: %(default)s)"
    parser.add_argument("--speed", help=help_, type=_speed, default=1.0, metavar="X")
    help_ = "serve https; also prints the file with the authority to trust"
    parser.add_argument("--tls", help=help_, action="store_true")


def add_simulator_flags(parser: argparse.ArgumentParser, address: str) -> None:
    """--scenario, and the flag `address` with the simulator's address."""
    parser.add_argument(
        "--scenario",
        help="what is simulated, see below (default: %(default)s)",
        choices=SCENARIOS,
        default="steady",
        metavar="S",
    )
    parser.add_argument(
        address,
        help="host:port of the simulated account; port 0: a free one (default: %(default)s)",
        type=flags.parse_address,
        default="127.0.0.1:0",
        metavar="ADDRESS",
    )


def _speed(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text}: write a number, 0 (time stands still) or more")
    return float(text)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal stops the process."""
    import asyncio

    return asyncio.run(_serve(options))


async def _serve(options: argparse.Namespace) -> int:
    from exporter.service import process

    stop = process.stop_on_signals()
    host, port = options.listen_address
    with ExitStack() as stack:
        tls = authority = None
        if options.tls:
            from exporter.cli.certificate import server_certificate

            tls, authority = stack.enter_context(server_certificate(host or _ANYWHERE))
        async with simulated_account(
            options.scenario,
            host or _ANYWHERE,
            port,
            seed=options.seed,
            jobs=options.jobs,
            nodes=options.nodes,
            speed=options.speed,
            tls=tls,
        ) as simulation:
            print(f"endpoint: {simulation.endpoint}")
            print(f"account: {simulation.account_name}")
            print(f"key: {simulation.account_key}", flush=True)
            if authority is not None:
                print(f"authority: {authority}", flush=True)
            await stop.wait()
    return 0


@asynccontextmanager
async def simulated_account(
    scenario: str,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    seed: int = 1,
    jobs: int = 12,
    nodes: int = 8,
    speed: float = 1.0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Simulation]:
    """Serve a simulated account that starts now. OSError where the port is not free.

    `nodes`: of each fixed pool. `speed`: simulated seconds to a real one.
    """
    from exporter import simulator

    start = datetime.now(UTC)
    faults = simulator.Faults(seed=seed)
    simulator.begin_faults(faults, scenario)
    life = simulator.SCENARIOS[simulator.world_of(scenario)]
    clock = simulator.Clock(start, speed=speed)
    world = simulator.World(life, seed=seed, jobs=jobs, nodes=nodes, start=start)
    scenario_routes = simulator.scenario_routes(world, faults, scenario)
    routes = (*scenario_routes, *simulator.fault_routes(faults))
    async with simulator.serve(
        world,
        clock,
        interceptors=(faults,),
        routes=routes,
        host=host,
        port=port,
        tls=tls,
        simulated_date=True,
    ) as simulation:
        yield simulation
