"""The parser of the command line: help like a manual page, and near misses named."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

from exporter.cli.commands import Command

PROGRAM = "azure-batch-exporter"

EXIT_STATUS = {"0": "success", "1": "something failed at run time", "2": "usage or configuration"}


class Parser(argparse.ArgumentParser):
    """Never abbreviates a flag: a later version may have another one that begins alike."""

    def __init__(self, **given: Any) -> None:
        given.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**given, allow_abbrev=False)

    @property
    def flags(self) -> list[str]:
        """The long flags there are."""
        return [name for each in self._actions for name in each.option_strings if name[:2] == "--"]


class CommandParser(Parser):
    """The parser of a command. It imports the command's `module` when it parses or is asked."""

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
            import_module(self._module).define(self)


class RootParser(Parser):
    """The program's own. It names the flag or command that a misspelled one is close to.

    `commands`: the parser of each. Only mistakes need the flags of more than one command.
    """

    def __init__(self, commands: Iterable[Command], **given: Any) -> None:
        super().__init__(**given)
        added = self.add_subparsers(
            title="commands", required=True, metavar="COMMAND", parser_class=CommandParser
        )
        self.commands = {
            command.name: added.add_parser(
                command.name, help=command.summary, module=command.module
            )
            for command in commands
        }

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """What the arguments say; status 2 and a near miss where they say nothing that can be."""
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


class OneOf:
    """The type of a flag that has one of a few values."""

    def __init__(self, choices: Iterable[str]) -> None:
        self.choices = tuple(choices)

    def __call__(self, text: str) -> str:
        """The value; argparse prints what is wrong with it."""
        if text not in self.choices:
            near = _did_you_mean(text, self.choices)
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(self.choices)}{near}")
        return text


def describe(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], int],
    description: str,
    *,
    examples: Mapping[str, str],
    status: Mapping[str, str] = EXIT_STATUS,
    **sections: Mapping[str, str],
) -> None:
    """Give a command's parser what the command does, and a help that reads like a manual page.

    `examples`: what each command line does. `sections`: further ones, each of terms and what they
    mean; `status`: of the process.
    """
    shown = {"examples": examples, **sections, "exit status": status}
    parser.description = _paragraphs(description)
    parser.epilog = "\n".join(_section(title, terms) for title, terms in shown.items())
    parser.set_defaults(command=command, command_parser=parser)


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    # Imported here: exporter.config imports pydantic, and only mistakes need it.
    from exporter.config.near_miss import did_you_mean

    return did_you_mean(word, known)


def _paragraphs(text: str) -> str:
    parts = textwrap.dedent(text).strip().split("\n\n")
    return "\n\n".join(textwrap.fill(" ".join(part.split()), 79) for part in parts)


def _section(title: str, terms: Mapping[str, str]) -> str:
    """A title, and each term with its meaning: beside it where all terms are short."""
    width = max(map(len, terms))
    lines = [f"{title}:"]
    for term, meaning in terms.items():
        if width <= 24:
            wrapped = textwrap.wrap(meaning, 75 - width) or [""]
            lines.append(f"  {term.ljust(width)}  {wrapped[0]}")
            lines += [" " * (width + 4) + line for line in wrapped[1:]]
        else:
            lines += [
                f"  {term}",
                *textwrap.wrap(meaning, 73, initial_indent=" " * 6, subsequent_indent=" " * 6),
            ]
    return "\n".join(lines) + "\n"
