"""The parser of the command line. It suggests the flag or command that a misspelled one is near."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

PROGRAM = "azure-batch-exporter"


class Parser(argparse.ArgumentParser):
    """Never abbreviates a flag: a later version may have another one that begins alike."""

    def __init__(self, **given: Any) -> None:
        given.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**given, allow_abbrev=False)

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


class CommandParser(Parser):
    """The parser of a command. It imports the command's `module` when it parses or is asked.

    The module has `HELP`, `add_flags(parser)` and `run(options)`, which returns the exit status.
    """

    def __init__(self, *, module: str, **given: Any) -> None:
        super().__init__(**given)
        self._module = module
        self._is_defined = False

    @property
    def flags(self) -> list[str]:
        """The long flags there are."""
        self._define()
        return super().flags

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What argparse calls once it knows the command."""
        self._define()
        return super().parse_known_args(args, namespace)

    def _define(self) -> None:
        if not self._is_defined:
            self._is_defined = True
            module = import_module(self._module)
            self.description, title, rest = module.HELP.partition("examples:\n")
            self.epilog = title + rest
            self.set_defaults(command=module.run, command_parser=self)
            module.add_flags(self)


class RootParser(Parser):
    """The program's own parser. `commands`: name and summary of each.

    Only mistakes need the flags of more than one command.
    """

    def __init__(self, commands: Mapping[str, str], **given: Any) -> None:
        super().__init__(**given)
        added = self.add_subparsers(
            title="commands", required=True, metavar="COMMAND", parser_class=CommandParser
        )
        self.commands = {
            name: added.add_parser(name, help=summary, module=f"exporter.cli.{name}")
            for name, summary in commands.items()
        }

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """The options. Exits with status 2 and a suggestion where the arguments are wrong."""
        given = list(sys.argv[1:] if arguments is None else arguments)
        first = given[0] if given else ""
        if first and not first.startswith("-") and first not in self.commands:
            known = ", ".join(self.commands)
            self.error(f"{first} is none of {known}{_did_you_mean(first, self.commands)}")
        flag = first.partition("=")[0]
        if flag.startswith("--") and flag not in self.flags and (owners := self._owners(flag)):
            self.error(f"{flag} belongs behind a command: {PROGRAM} {owners[0]} {first}")
        parsed, unknown = self.parse_known_args(given)
        if unknown:
            parser: Parser = parsed.command_parser
            named = [f"{each}{self._meant(parser, each)}" for each in unknown]
            parser.error(f"unrecognized arguments: {', '.join(named)}")
        return parsed

    def _meant(self, parser: Parser, argument: str) -> str:
        flag = argument.partition("=")[0]
        if near := _did_you_mean(flag, parser.flags):
            return near
        owners = self._owners(flag)
        return f" (a flag of {' and '.join(owners)})" if owners else ""

    def _owners(self, flag: str) -> list[str]:
        """The commands that have a flag. Imports the modules of all."""
        return [name for name, parser in self.commands.items() if flag in parser.flags]


def one_of(choices: Iterable[str]) -> Callable[[str], str]:
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
