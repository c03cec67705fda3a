"""`simulate`: a simulated Batch account alone, for other clients."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from exporter.cli import flags

if TYPE_CHECKING:
    import ssl

    from exporter.simulator import Identity, Simulation

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
    "sign-in-secret-expired": "Microsoft Entra ID refuses the client secret: it has expired.",
    "sign-in-certificate-expired": (
        "Microsoft Entra ID refuses the client certificate: it has expired."
    ),
    "sign-in-throttled": "One token of 5 minutes, then 429 to each request for another.",
    "sign-in-hangs": "One token of 5 minutes, then no answer to requests for another.",
}

SIGN_IN = "sign-in-"
"""How the scenarios begin that need clients who sign in with tokens."""


def scenario_lines(names: Iterable[str]) -> str:
    """Lines with these scenarios, each with its summary."""
    return "\n".join(
        textwrap.fill(f"  {name:17}  {SCENARIOS[name]}", 79, subsequent_indent=" " * 21)
        for name in names
    )


SCENARIOS_HELP = f"""\
scenarios:
{scenario_lines(SCENARIOS)}

Those that begin with {SIGN_IN} need clients who sign in with tokens: the demo is
one where it starts with such a scenario; simulate needs --identity."""

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
  azure-batch-exporter simulate --identity
      with a stand-in of Microsoft Entra ID, of a virtual machine's token
      endpoint and of App Service's

{SCENARIOS_HELP}

{flags.EXIT_STATUS}
"""

_TOKEN_LIFETIME = timedelta(days=30)
"""Of the federated token, which nobody renews as Kubernetes would."""

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
    help_ = "also serve token endpoints on loopback; prints what each way to sign in needs"
    parser.add_argument("--identity", help=help_, action="store_true")


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

    if options.scenario.startswith(SIGN_IN) and not options.identity:
        print(f"--scenario={options.scenario} needs --identity: add it", file=sys.stderr)
        return 2

    return asyncio.run(_serve(options))


async def _serve(options: argparse.Namespace) -> int:
    from exporter.service import process

    stop = process.stop_on_signals()
    host, port = options.listen_address
    async with AsyncExitStack() as stack:
        tls = authority = identity = None
        if options.tls or options.identity:
            from exporter.cli.certificate import server_certificate

            certificate = server_certificate(host or _ANYWHERE)
            tls, authority = stack.enter_context(certificate)
        if tls is not None and options.identity:
            identity = await stack.enter_async_context(simulated_identity(tls))
        account = simulated_account(
            options.scenario,
            host or _ANYWHERE,
            port,
            seed=options.seed,
            jobs=options.jobs,
            nodes=options.nodes,
            speed=options.speed,
            tls=tls if options.tls else None,
            identity=identity,
        )
        simulation = await stack.enter_async_context(account)
        print(f"endpoint: {simulation.endpoint}")
        print(f"account: {simulation.account_name}")
        print(f"key: {simulation.account_key}", flush=True)
        if options.tls:
            print(f"authority: {authority}", flush=True)
        if authority is not None and identity is not None:
            folder = stack.enter_context(TemporaryDirectory(prefix="azure-batch-simulator-"))
            print(_sign_in_lines(identity, authority, Path(folder)), flush=True)
        await stop.wait()
    return 0


def _sign_in_lines(identity: Identity, authority: Path, folder: Path) -> str:
    """What each way to sign in needs. Writes a certificate and a federated token to the folder."""
    from exporter.cli.certificate import write_client_certificate
    from exporter.simulator import IDENTITY_PATH

    pem, pfx = write_client_certificate(folder)
    identity.application.certificates.append(pem.read_bytes())
    token = folder / "federated-token"
    token.write_text(identity.application.federated[0].token(identity.now(), _TOKEN_LIFETIME))
    return f"""\
tenant_id: {identity.tenant_id}
client_id: {identity.client_id}
client_secret: {identity.client_secret}
certificate_file: {pem}
certificate_file (PFX): {pfx}
sign-in control: {identity.url}{IDENTITY_PATH}

Microsoft Entra ID, for the client secret, the certificate and workload identity
AZURE_AUTHORITY_HOST={identity.authority}
SSL_CERT_FILE={authority}

workload identity
AZURE_TENANT_ID={identity.tenant_id}
AZURE_CLIENT_ID={identity.client_id}
AZURE_FEDERATED_TOKEN_FILE={token}

managed identity as on a virtual machine
AZURE_POD_IDENTITY_AUTHORITY_HOST={identity.url}

managed identity as in App Service, which goes before that of a virtual machine
IDENTITY_ENDPOINT={identity.app_service_url}
IDENTITY_HEADER={identity.header}"""


@asynccontextmanager
async def simulated_identity(tls: ssl.SSLContext) -> AsyncIterator[Identity]:
    """Serve token endpoints on loopback, for a simulated account."""
    from exporter import simulator

    tokens = simulator.TokenRegistry(lambda: datetime.now(UTC))
    async with simulator.serve_identity(tokens, tls=tls) as identity:
        yield identity


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
    identity: Identity | None = None,
    sign_in: Callable[[str], None] | None = None,
    changed: Callable[[], None] = lambda: None,
) -> AsyncIterator[Simulation]:
    """Serve a simulated account that starts now. OSError where the port is not free.

    `nodes`: of each fixed pool. `speed`: simulated seconds to a real one. The account takes the
    tokens of `identity`. `sign_in` begins the sign-in of a scenario, where that is more than to
    play its failure. `changed` is called when the scenario or the faults change.
    """
    from exporter import simulator

    if identity is not None and sign_in is None:
        sign_in = partial(simulator.begin_sign_in, identity)
    if sign_in is not None:
        sign_in(scenario)
    start = datetime.now(UTC)
    faults = simulator.Faults(seed=seed)
    simulator.begin_faults(faults, scenario)
    faults.on_change = changed
    life = simulator.SCENARIOS[simulator.world_of(scenario)]
    clock = simulator.Clock(start, speed=speed)
    world = simulator.World(life, seed=seed, jobs=jobs, nodes=nodes, start=start)
    scenario_routes = simulator.scenario_routes(world, faults, scenario, sign_in)
    routes = (*scenario_routes, *simulator.fault_routes(faults))
    async with simulator.serve(
        world,
        clock,
        tokens=None if identity is None else identity.tokens,
        interceptors=(faults,),
        routes=routes,
        host=host,
        port=port,
        tls=tls,
        simulated_date=True,
    ) as simulation:
        yield simulation
