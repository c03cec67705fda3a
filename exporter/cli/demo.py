"""`demo`: the exporter on a simulated account, with nothing to configure."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from os import environ
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from exporter.cli import flags, simulate
from exporter.cli.parsing import revision
from exporter.service import logs

if TYPE_CHECKING:
    import ssl

    from exporter.config import Config
    from exporter.simulator import Identity, Simulation

KEY_VARIABLE = "AZURE_BATCH_EXPORTER_DEMO_KEY"
"""The environment variable with the simulated account's key, for the demo's configuration."""

SECRET_VARIABLE = "AZURE_BATCH_EXPORTER_DEMO_SECRET"  # noqa: S105 - a name
"""The environment variable with the client secret, where the demo signs in with one."""

CERTIFICATE_EXPIRED = "sign-in-certificate-expired"
"""The scenario in which the demo signs in with a client certificate."""

HELP = f"""\
Starts a simulated Batch account on a free port of this machine and the
exporter on top of it, and prints the URLs to open. While it runs, the scenario
can be changed and about 120 faults can be injected. docs/tour.md shows what to
look at.

examples:
  azure-batch-exporter demo
      a healthy account, on port 10225
  azure-batch-exporter demo --scenario=prep-storm
      one with failures
  azure-batch-exporter demo --scenario=sign-in-secret-expired
      one that is signed in to with a client secret, which has expired

{simulate.SCENARIOS_HELP}

{flags.EXIT_STATUS}
"""

_ALL_INTERFACES = re.compile(r"//(0\.0\.0\.0|\[::\]):")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    simulate.add_simulator_flags(parser, "--simulator.listen-address")
    flags.add_log_flags(parser)
    flags.add_web_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal stops the process."""
    import asyncio

    logs.configure(options.log_level, options.log_format, is_service=True)
    if not options.scenario.startswith(simulate.SIGN_IN):
        return asyncio.run(_serve(options, None))

    from exporter.cli.certificate import server_certificate

    with server_certificate("127.0.0.1") as (tls, authority):
        # aiohttp reads it once, when it is imported.
        environ["SSL_CERT_FILE"] = str(authority)
        return asyncio.run(_serve(options, tls))


async def _serve(options: argparse.Namespace, tls: ssl.SSLContext | None) -> int:
    from exporter.service import open_files, process
    from exporter.service.service import open_service

    stop = process.stop_on_signals()

    def announce(urls: tuple[str, ...]) -> None:
        shown = tuple(dict.fromkeys(_ALL_INTERFACES.sub("//localhost:", url) for url in urls))
        metrics = options.web_telemetry_path
        identity = sign_in.identity.url if sign_in else ""
        print(instructions(simulation.endpoint, options.scenario, shown, metrics, identity))
        print("Press Ctrl-C to stop.", flush=True)

    host, port = options.simulator_listen_address
    async with AsyncExitStack() as stack:
        sign_in = None
        if tls is not None:
            sign_in = await stack.enter_async_context(_token_sign_in(options.scenario, tls))
        account = simulate.simulated_account(
            options.scenario,
            host or "127.0.0.1",
            port,
            identity=sign_in.identity if sign_in else None,
            sign_in=sign_in.begin if sign_in else None,
            # A pause that the scenario before asked for would hide what the next one does.
            changed=lambda: service.end_pauses(),
        )
        simulation = await stack.enter_async_context(account)
        loaded = demo_config(simulation, sign_in.auth if sign_in else None)
        open_files.raise_limit()
        service = await stack.enter_async_context(open_service(loaded, revision=revision()))
        await process.run(service, flags.listener(options), lambda: loaded, stop, announce)
    return 0


@dataclass(frozen=True)
class SignIn:
    """How the demo signs in with tokens. `auth`: as in a configuration.

    `begin`: begins the sign-in of a scenario, by its name.
    """

    identity: Identity
    auth: Mapping[str, str]
    begin: Callable[[str], None]


@asynccontextmanager
async def _token_sign_in(scenario: str, tls: ssl.SSLContext) -> AsyncIterator[SignIn]:
    """Serve token endpoints, and set the environment so that this process signs in there."""
    from exporter.simulator import begin_sign_in

    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="azure-batch-simulator-"))
        identity = await stack.enter_async_context(simulate.simulated_identity(tls))
        environ["AZURE_AUTHORITY_HOST"] = identity.authority
        ids = {"tenant_id": identity.tenant_id, "client_id": identity.client_id}
        if scenario == CERTIFICATE_EXPIRED:
            auth = {"method": "client_certificate", **ids}
            auth["certificate_file"] = str(Path(folder, "client.pem"))
            yield SignIn(identity, auth, _with_certificate(identity, Path(folder)))
        else:
            environ[SECRET_VARIABLE] = identity.client_secret
            auth = {"method": "client_secret", **ids, "client_secret_env": SECRET_VARIABLE}
            yield SignIn(identity, auth, partial(begin_sign_in, identity))


def _with_certificate(identity: Identity, folder: Path) -> Callable[[str], None]:
    """Begins the sign-in of a scenario, with client.pem replaced by the certificate that fits."""
    from exporter.cli import atomic_file
    from exporter.cli.certificate import write_client_certificate
    from exporter.simulator import begin_sign_in

    good, expired = (
        write_client_certificate(folder, timedelta(days=days), name)[0].read_bytes()
        for days, name in ((30, "good"), (-1, "expired"))
    )
    identity.application.certificates += good, expired

    def begin(scenario: str) -> None:
        certificate = expired if scenario == CERTIFICATE_EXPIRED else good
        atomic_file.write(folder / "client.pem", certificate)
        begin_sign_in(identity, scenario)

    return begin


def instructions(
    endpoint: str, scenario: str, urls: tuple[str, ...], metrics: str, identity: str = ""
) -> str:
    """The lines that tell the user which URLs to open and what to try.

    `metrics`: a path. `identity`: where tokens come from; "": the account key signs in.
    """
    from exporter.simulator import FAULTS_PATH, IDENTITY_PATH, SCENARIO_PATH

    control, faults = endpoint + SCENARIO_PATH, endpoint + FAULTS_PATH
    others = [
        name
        for name in simulate.SCENARIOS
        if name != scenario and (identity or not name.startswith(simulate.SIGN_IN))
    ]
    pages = "\n".join(
        f"  curl --unix-socket {url.removeprefix('unix:')} http://localhost{metrics}"
        if url.startswith("unix:")
        else f"  {url}/ for people, {url}{metrics} for Prometheus"
        for url in urls
    )
    if identity:
        sign_in = f"""\
Let signing in fail in one of some 30 ways, then heal it
  curl -X PUT {identity}{IDENTITY_PATH} -d '{{"failure": "application-disabled"}}'
  curl -X DELETE {identity}{IDENTITY_PATH}
  curl {identity}{IDENTITY_PATH} names them all"""
    else:
        sign_in = """\
Let signing in fail
  stop this demo, and start one with --scenario=sign-in-secret-expired"""
    there = "All series are there within 10 seconds."
    if scenario.startswith(simulate.SIGN_IN):
        there = "Signing in fails, at once or within ten minutes; the page and the log say why."
    return f"""\
A simulated Batch account at {endpoint}
runs the scenario {scenario}. {simulate.SCENARIOS[scenario]}

Open
{pages}
  {there}

Change the scenario
  curl -X PUT {control} -d '{{"scenario": "{others[0]}"}}'
{simulate.scenario_lines(others)}

Inject one of about 120 faults, then clear it
  curl -X PUT {faults} -d '{{"faults": [{{"name": "outage"}}]}}'
  curl -X DELETE {faults}
  curl {faults} names them all

{sign_in}

docs/tour.md shows what to look at."""


def demo_config(simulation: Simulation, auth: Mapping[str, str] | None = None) -> Config:
    """A configuration that watches everything of a simulated account, often.

    `auth`: how it signs in; None: with the account key.
    """
    from exporter.config import loader

    environ[KEY_VARIABLE] = simulation.account_key
    account = {
        "name": simulation.account_name,
        "endpoint": simulation.endpoint,
        "auth": auth or {"method": "shared_key", "key_env": KEY_VARIABLE},
        "requests_per_second": 200,
        "discovery_interval": "5s",
        "jobs": [{"id_regex": ".*", "completed_for": "1h"}],
    }
    text = json.dumps({"defaults": {"interval": "5s"}, "accounts": [account]})
    return loader.parse(text, "demo", Path())
