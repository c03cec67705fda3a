"""The command line, and the composition root: parse, load, wire, run."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import exporter
from exporter import config, daemon, demo, healthcheck, logs
from exporter.config import loader
from exporter.errors import ConfigError
from exporter.exposition import Format
from exporter.service import open_service
from exporter.shard import WHOLE, Shard
from exporter.web.config_file import Settings, WebConfigFile
from exporter.web.limits import Limits
from exporter.web.pages import PAGES

log = logging.getLogger("exporter")

DEFAULT_PORT = 10225
_ANYWHERE = "0.0.0.0"  # noqa: S104 - only where the user gave an address without a host
DOCS_VARIABLE = "AZURE_BATCH_EXPORTER_DOCS_URL"
"""Where the folder docs/ of this version can be read: the page links to it."""

REVISION_VARIABLE = "AZURE_BATCH_EXPORTER_REVISION"
"""Set in the image: the commit that it was built from."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Exit status: 0; 1 something failed at run time; 2 usage or configuration."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"azure-batch-exporter: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="azure-batch-exporter", description="Prometheus exporter for Azure Batch."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="poll the configured accounts and serve their metrics")
    _add_config(run, required=False)
    _add_shard(run)
    _add_log_flags(run)
    _add_web_flags(run)
    run.set_defaults(command=_run)

    demo_ = commands.add_parser(
        "demo", help="serve the metrics of a simulated account: nothing to configure"
    )
    _add_scenario(demo_)
    _add_log_flags(demo_)
    _add_web_flags(demo_)
    demo_.set_defaults(command=_demo)

    simulate = commands.add_parser("simulate", help="serve a simulated Batch account alone")
    defaults = demo.Settings()
    simulate.add_argument(
        "--listen-address",
        type=parse_address,
        default=("127.0.0.1", 0),
        metavar="ADDRESS",
        help="host:port to serve on (default: a free port of 127.0.0.1)",
    )
    _add_scenario(simulate)
    simulate.add_argument(
        "--seed",
        type=int,
        default=defaults.seed,
        metavar="N",
        help="the same seed gives the same account (default: %(default)s)",
    )
    simulate.add_argument(
        "--jobs",
        type=_positive,
        default=defaults.jobs,
        metavar="N",
        help="number of jobs at any time (default: %(default)s)",
    )
    simulate.add_argument(
        "--nodes",
        type=_positive,
        default=defaults.nodes,
        metavar="N",
        help="number of nodes in each pool (default: %(default)s)",
    )
    simulate.add_argument(
        "--speed",
        type=_speed,
        default=defaults.speed,
        metavar="X",
        help="simulated seconds to a real one (default: %(default)s)",
    )
    simulate.set_defaults(command=_simulate)

    check = commands.add_parser("check", help="validate a configuration file")
    _add_config(check, required=True)
    check.set_defaults(command=_check)

    scrape = commands.add_parser("scrape", help="poll everything once and print the metrics")
    _add_config(scrape, required=True)
    _add_shard(scrape)
    _add_log_flags(scrape)
    scrape.set_defaults(command=_scrape)

    health = commands.add_parser(
        "healthcheck", help="ask a running exporter for its health; for containers without curl"
    )
    health.add_argument(
        "--url",
        default=f"http://127.0.0.1:{DEFAULT_PORT}/-/healthy",
        help="what to ask, http or https; tcp://host:port only connects (default: %(default)s)",
    )
    health.set_defaults(command=_healthcheck)
    return parser


class _Version(argparse.Action):
    """Prints one line; argparse's own action would break it at the width of the terminal."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(
            f"azure-batch-exporter {exporter.__version__}"
            f" (revision {_revision() or 'unknown'}, Python {platform.python_version()})"
        )
        parser.exit()


def _add_config(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--config.file",
        dest="config_file",
        type=Path,
        required=required,
        metavar="F",
        help="configuration file (YAML)",
    )


def _add_shard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shard",
        type=_shard,
        default=WHOLE,
        metavar="I/N",
        help="poll only the jobs of part I, counted from 0, of N (default: %(default)s, all)",
    )


def _add_log_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log.level",
        dest="log_level",
        choices=logs.LEVELS,
        default="info",
        help="what is logged (default: %(default)s)",
    )
    parser.add_argument(
        "--log.format",
        dest="log_format",
        choices=logs.FORMATS,
        default="logfmt",
        help="how it is logged, on standard error (default: %(default)s)",
    )


def _add_web_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--web.listen-address",
        dest="listen_addresses",
        type=parse_address,
        action="append",
        metavar="ADDRESS",
        help=f"host:port, [::1]:port or :port to serve on; repeatable (default: :{DEFAULT_PORT})",
    )
    parser.add_argument(
        "--web.telemetry-path",
        dest="telemetry_path",
        type=_path,
        default="/metrics",
        metavar="PATH",
        help="path of the metrics (default: %(default)s)",
    )
    parser.add_argument(
        "--web.enable-lifecycle",
        dest="enable_lifecycle",
        action="store_true",
        help="let POST /-/reload reload the configuration, as SIGHUP does",
    )
    parser.add_argument(
        "--web.config.file",
        dest="web_config_file",
        type=Path,
        metavar="F",
        help="web configuration file (YAML): TLS, basic auth, headers",
    )
    parser.add_argument(
        "--web.max-requests",
        dest="max_requests",
        type=_count,
        default=Limits().max_requests,
        metavar="N",
        help="requests answered at once, past which they get 503; 0: no limit"
        " (default: %(default)s)",
    )


def _add_scenario(parser: argparse.ArgumentParser) -> None:
    listed = " ".join(f"{name}: {summary}" for name, summary in demo.scenarios().items())
    parser.add_argument(
        "--scenario",
        choices=tuple(demo.scenarios()),
        default=demo.Settings().scenario,
        help=f"what is simulated (default: %(default)s). {listed}",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text}: write a whole number, 1 or more")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: write a whole number, 0 or more")
    return int(text)


def _shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 <= speed <= 1e6:
        raise argparse.ArgumentTypeError(f"{text}: write a number, 0 (time stands still) or more")
    return speed


def parse_address(text: str) -> tuple[str | None, int]:
    """(host, port) of `host:port`, `[::1]:port` or `:port`; host None: all interfaces."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise argparse.ArgumentTypeError(f"{text}: write an IPv6 address in brackets, [::1]:port")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text}: write host:port, [::1]:port or :port")
    return host or None, int(port)


def _path(text: str) -> str:
    taken = text.startswith(("/-/", "/api/", "/static/")) or text in PAGES.keys() - {"/"}
    if not text.startswith("/") or taken:
        raise argparse.ArgumentTypeError("must start with / and not be a path of the exporter")
    return text


def _revision() -> str:
    return os.environ.get(REVISION_VARIABLE, "")


def _docs_url() -> str:
    url = os.environ.get(DOCS_VARIABLE, "")
    if url and not url.startswith(("https://", "http://")):
        raise ConfigError((f"{DOCS_VARIABLE}: {url!r} is not a URL: write https://…",))
    return url


def _run(options: argparse.Namespace) -> int:
    if options.config_file is None:
        raise ConfigError(
            (
                "azure-batch-exporter run needs --config.file=F, a YAML file that names the Batch"
                " accounts to poll. config.example.yaml shows every key; azure-batch-exporter demo"
                " runs without a configuration.",
            )
        )
    logs.configure(options.log_level, options.log_format)
    loaded = loader.load(options.config_file)
    return asyncio.run(_serve(loaded, options))


async def _serve(loaded: config.Config, options: argparse.Namespace) -> int:
    stop = daemon.stop_on_signals()

    def load() -> config.Config:
        return loader.load(options.config_file)

    async with open_service(loaded, revision=_revision(), shard=options.shard) as service:
        await daemon.run(service, _listener(options), load, stop)
    return 0


def _listener(options: argparse.Namespace) -> daemon.Listener:
    addresses = tuple(options.listen_addresses or [(None, DEFAULT_PORT)])
    file = options.web_config_file
    return daemon.Listener(
        addresses,
        options.telemetry_path,
        WebConfigFile(file) if file is not None else Settings,
        Limits(max_requests=options.max_requests),
        enable_lifecycle=options.enable_lifecycle,
        docs_url=_docs_url(),
    )


def _demo(options: argparse.Namespace) -> int:
    logs.configure(options.log_level, options.log_format)
    return asyncio.run(_serve_demo(options))


async def _serve_demo(options: argparse.Namespace) -> int:
    stop = daemon.stop_on_signals()
    settings = demo.Settings(scenario=options.scenario)

    def announce(urls: tuple[str, ...]) -> None:
        print(f"Simulated Batch account, scenario {options.scenario}: {simulation.endpoint}")
        anywhere = re.compile(r"//(0\.0\.0\.0|\[::\]):")
        for shown in dict.fromkeys(anywhere.sub("//localhost:", url) for url in urls):
            print(f"Metrics: {shown}{options.telemetry_path}   Page: {shown}/")
        print(demo.fault_calls(simulation))
        print("All series are there within 10 seconds. Press Ctrl-C to stop.", flush=True)

    async with demo.simulated_account(settings) as simulation:
        loaded = demo.demo_config(simulation)
        async with open_service(loaded, revision=_revision()) as service:
            await daemon.run(service, _listener(options), lambda: loaded, stop, announce)
    return 0


def _simulate(options: argparse.Namespace) -> int:
    return asyncio.run(_serve_simulation(options))


async def _serve_simulation(options: argparse.Namespace) -> int:
    stop = daemon.stop_on_signals()
    settings = demo.Settings(
        options.scenario, options.seed, options.jobs, options.nodes, options.speed
    )
    host, port = options.listen_address
    async with demo.simulated_account(settings, host or _ANYWHERE, port) as simulation:
        print(f"endpoint: {simulation.endpoint}")
        print(f"account: {simulation.account_name}")
        print(f"key: {simulation.account_key}", flush=True)
        await stop.wait()
    return 0


def _check(options: argparse.Namespace) -> int:
    loaded = loader.load(options.config_file)
    rules = sum(len(account.jobs) for account in loaded.accounts)
    print(f"{options.config_file}: valid, {len(loaded.accounts)} account(s), {rules} rule(s)")
    return 0


def _scrape(options: argparse.Namespace) -> int:
    logs.configure(options.log_level, options.log_format)
    return asyncio.run(_scrape_once(loader.load(options.config_file), options.shard))


async def _scrape_once(loaded: config.Config, shard: Shard) -> int:
    async with open_service(loaded, revision=_revision(), shard=shard) as service:
        await service.run_once()
        await service.settle()
        state = service.exposition.body(Format.TEXT)
        own = service.telemetry.text(Format.TEXT, state.series)
        sys.stdout.buffer.write(state.plain + own)
        sys.stdout.buffer.flush()
        return 0 if all(service.store.is_up(account.name) for account in loaded.accounts) else 1


def _healthcheck(options: argparse.Namespace) -> int:
    is_alive, text = healthcheck.ask(options.url)
    print(text, file=sys.stdout if is_alive else sys.stderr)
    return 0 if is_alive else 1


if __name__ == "__main__":
    sys.exit(main())
