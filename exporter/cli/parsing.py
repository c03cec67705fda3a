"""The parser of the command line. It imports the module of one command only."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import exporter

PROGRAM = "azure-batch-exporter"

REVISION_VARIABLE = "AZURE_BATCH_EXPORTER_REVISION"
"""Set in the image: the commit that it was built from."""

COMMANDS = {
    "run": "poll the configured accounts and serve their metrics",
    "demo": "serve the metrics of a simulated account: nothing to configure",
    "simulate": "serve a simulated Batch account alone",
    "check": "validate a configuration file",
    "scrape": "poll everything once and print the metrics",
    "healthcheck": "ask a running exporter for its health; for containers without curl",
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command, with `run`, which runs it. `--a.b-c` is the option `a_b_c`.

    Exits with status 2 where the arguments are wrong.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = _program_parser().parse_args(given[:1]).command
    module = import_module(f"exporter.cli.{name}")
    description, title, rest = module.HELP.partition("examples:\n")
    parser = _parser(f"{PROGRAM} {name}", description, title + rest)
    module.add_flags(parser)
    options = vars(parser.parse_args(given[1:]))
    options = {flag.replace(".", "_"): value for flag, value in options.items()}
    return argparse.Namespace(run=module.run, **options)


def _program_parser() -> argparse.ArgumentParser:
    """The parser of the first argument."""
    end = f"{PROGRAM} COMMAND --help says more of each. Begin with {PROGRAM} demo."
    parser = _parser(PROGRAM, "Prometheus exporter for Azure Batch.", end)
    source = f"revision {revision() or 'unknown'}, Python {sys.version.partition(' ')[0]}"
    version = f"{PROGRAM} {exporter.__version__} ({source})"
    parser.add_argument("--version", action="version", version=version, help="print the version")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary)
    return parser


def _parser(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a later version may have another flag that begins alike
    )


def revision() -> str:
    """The commit that this was built from, or ""."""
    return os.environ.get(REVISION_VARIABLE, "")
