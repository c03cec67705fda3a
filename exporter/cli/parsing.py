"""The parser of the command line. It suggests the flag or command that a misspelled one is near."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib import import_module
from typing import Any, NoReturn

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


class Parser(argparse.ArgumentParser):
    """Never abbreviates a flag: a later version may have another one that begins alike."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    @property
    def flags(self) -> list[str]:
        """The long flags there are."""
        return [name for each in self._actions for name in each.option_strings if name[:2] == "--"]

    def add_flag(self, name: str, help_: str, **given: Any) -> None:
        """Add a flag, with its default in the help. `--a.b-c` is the option `a_b_c`."""
        dest = name.removeprefix("--").replace(".", "_").replace("-", "_")
        shown = "" if given.get("default") is None else " (default: %(default)s)"
        self.add_argument(name, dest=dest, help=help_ + shown, **given)

    def add_choice(
        self, name: str, help_: str, choices: Sequence[str], default: str | None = None
    ) -> None:
        """Add a flag that has one of a few values. The default is the first, unless it is given."""
        metavar = "|".join(choices)
        self.add_flag(
            name, help_, type=one_of(choices), default=default or choices[0], metavar=metavar
        )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command, with `run`, which runs it.

    Exits with status 2 and a suggestion where the arguments are wrong.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    first = given[0] if given else ""
    if first not in COMMANDS:
        _exit_without_command(given, first)
    parser = _command_parser(first)
    options, unknown = parser.parse_known_args(given[1:])
    if unknown:
        named = [f"{each}{_meant(parser, each.partition('=')[0])}" for each in unknown]
        parser.error(f"unrecognized arguments: {', '.join(named)}")
    return options


def _command_parser(name: str) -> Parser:
    """Imports the module of a command, which has `HELP`, `add_flags(parser)` and `run(options)`."""
    module = import_module(f"exporter.cli.{name}")
    description, title, rest = module.HELP.partition("examples:\n")
    parser = Parser(f"{PROGRAM} {name}", description, title + rest)
    parser.set_defaults(run=module.run)
    module.add_flags(parser)
    return parser


def _exit_without_command(given: list[str], first: str) -> NoReturn:
    """Print help, version, or what is wrong."""
    commands = "".join(f"  {name:11}  {summary}\n" for name, summary in COMMANDS.items())
    end = f"{PROGRAM} COMMAND --help says more of each. Begin with {PROGRAM} demo."
    parser = Parser(
        PROGRAM, "Prometheus exporter for Azure Batch.", f"commands:\n{commands}\n{end}"
    )
    source = f"revision {revision() or 'unknown'}, Python {sys.version.partition(' ')[0]}"
    version = f"{PROGRAM} {exporter.__version__} ({source})"
    parser.add_argument("--version", action="version", version=version, help="print the version")
    parser.add_argument(
        "command",
        nargs=argparse.PARSER,
        metavar="COMMAND",
        help="one of these, and its flags",
    )
    if first and not first.startswith("-"):
        near = _did_you_mean(first, COMMANDS)
        parser.error(f"{first} is none of {', '.join(COMMANDS)}{near}")
    flag = first.partition("=")[0]
    if flag not in parser.flags and (owners := _owners(flag)):
        parser.error(f"{flag} belongs behind a command: {PROGRAM} {owners[0]} {first}")
    parser.parse_args(given)
    parser.error("COMMAND must come first")


def _meant(parser: Parser, flag: str) -> str:
    if near := _did_you_mean(flag, parser.flags):
        return near
    owners = _owners(flag)
    return f" (a flag of {' and '.join(owners)})" if owners else ""


def _owners(flag: str) -> list[str]:
    """The commands that have a flag. Imports the modules of all."""
    return [name for name in COMMANDS if flag in _command_parser(name).flags]


def revision() -> str:
    """The commit that this was built from, or ""."""
    return os.environ.get(REVISION_VARIABLE, "")


def one_of(choices: Collection[str]) -> Callable[[str], str]:
    """The type of a flag that has one of a few values."""

    def check(text: str) -> str:
        if text in choices:
            return text
        near = _did_you_mean(text, choices)
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}{near}")

    return check


def whole_number(least: int) -> Callable[[str], int]:
    """The type of a flag that has a whole number, `least` or more."""

    def check(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: write a whole number, {least} or more")
        return int(text)

    return check


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    # Imported here: exporter.config imports pydantic, and only mistakes need it.
    from exporter.config.near_miss import did_you_mean

    return did_you_mean(word, known)
