"""The program: it parses the command line and runs the command."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence

import exporter
from exporter.cli import check, demo, flags, healthcheck, run, scrape, simulate
from exporter.cli.os_errors import explain
from exporter.cli.parsing import PROGRAM, RootParser
from exporter.cli.parsing import Parser as CommandParser
from exporter.config.problems import ConfigError

COMMANDS = (run, demo, simulate, check, scrape, healthcheck)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Exit status: 0; 1 something failed at run time; 2 usage or configuration."""
    options = build_parser().parse(arguments)
    try:
        return int(options.command(options))
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{PROGRAM}: {explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def build_parser() -> RootParser:
    """All commands with their flags."""
    parser = RootParser(
        prog=PROGRAM,
        description="Prometheus exporter for Azure Batch.",
        epilog=f"{PROGRAM} COMMAND --help says more of each. Begin with {PROGRAM} demo.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", parser_class=CommandParser
    )
    for command in COMMANDS:
        command.add(commands)
    parser.commands = commands.choices
    return parser


class _Version(argparse.Action):
    """Prints one line; argparse's own action would break it at the width of the terminal."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(
            f"{PROGRAM} {exporter.__version__}"
            f" (revision {flags.revision() or 'unknown'}, Python {platform.python_version()})"
        )
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
