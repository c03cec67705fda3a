"""The program: it parses the command line and runs the command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import exporter
from exporter.cli import flags
from exporter.cli.os_errors import explain
from exporter.cli.parsing import PROGRAM, RootParser

COMMANDS = {
    "run": "poll the configured accounts and serve their metrics",
    "demo": "serve the metrics of a simulated account: nothing to configure",
    "simulate": "serve a simulated Batch account alone",
    "check": "validate a configuration file",
    "scrape": "poll everything once and print the metrics",
    "healthcheck": "ask a running exporter for its health; for containers without curl",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Exit status: 0; 1 something failed at run time; 2 usage or configuration."""
    options = build_parser().parse(arguments)
    try:
        return int(options.command(options))
    except OSError as error:
        print(f"{PROGRAM}: {explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    except Exception as error:
        # Imported here: exporter.config imports pydantic, which not every command needs.
        from exporter.config.problems import ConfigError

        if not isinstance(error, ConfigError):
            raise
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 2


def build_parser() -> RootParser:
    """All commands with their flags."""
    parser = RootParser(
        COMMANDS,
        prog=PROGRAM,
        description="Prometheus exporter for Azure Batch.",
        epilog=f"{PROGRAM} COMMAND --help says more of each. Begin with {PROGRAM} demo.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    return parser


class _Version(argparse.Action):
    """Prints one line; argparse's own action would break it at the width of the terminal."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import platform

        print(
            f"{PROGRAM} {exporter.__version__}"
            f" (revision {flags.revision() or 'unknown'}, Python {platform.python_version()})"
        )
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
