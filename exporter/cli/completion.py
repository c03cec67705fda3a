"""`completion`: scripts that let shells complete commands, flags and their values.

The scripts are written from the parser, so that they know what it knows. They are static: a shell
that had to start Python at each press of a key would be slow.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from exporter.cli.parsing import PROGRAM, Commands, OneOf, RootParser, add_command


def add(commands: Commands) -> None:
    """The command and its flags."""
    parser = add_command(
        commands,
        "completion",
        _completion,
        "print a script that lets a shell complete commands and flags",
        """
        Prints a script for bash, zsh or fish that completes commands, flags, the values of those
        that have a few, and files.
        """,
        examples={
            "source <(azure-batch-exporter completion bash)": "in ~/.bashrc",
            "source <(azure-batch-exporter completion zsh)": "in ~/.zshrc, after compinit",
            "azure-batch-exporter completion fish >"
            " ~/.config/fish/completions/azure-batch-exporter.fish": "once",
        },
        status={"0": "success", "2": "usage"},
    )
    parser.add_argument("shell", type=OneOf(SHELLS), metavar="|".join(SHELLS))


def _completion(options: argparse.Namespace) -> int:
    # The parser has all commands, this one among them.
    from exporter.__main__ import build_parser

    print(SHELLS[options.shell](list(known_commands(build_parser()))), end="")
    return 0


@dataclass(frozen=True)
class Flag:
    """A flag. `values`: what may follow, where that is a few words. `takes_value`, `takes_file`."""

    name: str
    help: str
    takes_value: bool
    takes_file: bool
    values: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """A command. `values`: the words that may follow it."""

    name: str
    help: str
    flags: tuple[Flag, ...]
    values: tuple[str, ...]


def known_commands(parser: RootParser) -> Iterator[Command]:
    """What the parser knows."""
    for name, command in parser.commands.items():
        actions = command.actions
        flags = tuple(_flag(action) for action in actions if action.option_strings)
        words = tuple(
            value for action in actions if not action.option_strings for value in _values(action)
        )
        yield Command(name, command.summary, flags, words)


def _flag(action: argparse.Action) -> Flag:
    return Flag(
        name=action.option_strings[-1],
        help=(action.help or "").partition(" (default")[0].partition(";")[0],
        takes_value=action.nargs != 0,
        takes_file=action.type is Path,
        values=_values(action),
    )


def _values(action: argparse.Action) -> tuple[str, ...]:
    return action.type.choices if isinstance(action.type, OneOf) else ()


def _bash(commands: list[Command]) -> str:
    names = " ".join(command.name for command in commands)
    cases = []
    for command in commands:
        flags = " ".join(f"{flag.name}{'=' if flag.takes_value else ''}" for flag in command.flags)
        cases.append(f"    {command.name}) words='{' '.join((*command.values, flags))}' ;;")
    values: dict[str, str] = {}
    for command in commands:
        for flag in command.flags:
            if flag.values:
                values[f"{command.name} {flag.name}"] = f"values='{' '.join(flag.values)}'"
            elif flag.takes_file:
                values[f"{command.name} {flag.name}"] = "files=yes"
    listed = "\n".join(f"    '{key}') {what} ;;" for key, what in values.items())
    return f"""\
# Completion of {PROGRAM} for bash, written by `{PROGRAM} completion bash`.
_azure_batch_exporter() {{
  # bash breaks words at "=": they are put together again.
  local line=${{COMP_LINE:0:COMP_POINT}} words='' values='' files=''
  local -a typed
  read -ra typed <<< "$line"
  local current=${{typed[-1]}}
  [[ $line == *' ' ]] && current=''
  local command=${{typed[1]-}}
  COMPREPLY=()
  if [[ ${{#typed[@]}} -lt 2 || ( ${{#typed[@]}} -eq 2 && -n $current ) ]]; then
    mapfile -t COMPREPLY < <(compgen -W '{names} --help --version' -- "$current")
    return
  fi
  local flag='' value=$current
  if [[ $current == --*=* ]]; then
    flag=${{current%%=*}} value=${{current#*=}}
  elif [[ -z $current ]]; then
    flag=${{typed[-1]}}
  else
    flag=${{typed[-2]}}
  fi
  case "$command $flag" in
{listed}
  esac
  if [[ -n $files ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$value")
    compopt -o filenames 2> /dev/null
    return
  fi
  if [[ -n $values ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$values" -- "$value")
    return
  fi
  case "$command" in
{chr(10).join(cases)}
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace 2> /dev/null
  return 0
}}
complete -F _azure_batch_exporter {PROGRAM}
"""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _zsh(commands: list[Command]) -> str:
    def argument(flag: Flag) -> str:
        about = flag.help.replace("[", "(").replace("]", ")").replace(":", "\\:")
        value = ""
        if flag.takes_file:
            value = ":file:_files"
        elif flag.values:
            value = f":value:({' '.join(flag.values)})"
        elif flag.takes_value:
            value = ":value:"
        return _quoted(f"{flag.name}{'=' if flag.takes_value else ''}[{about}]{value}")

    cases = []
    for command in commands:
        arguments = [argument(flag) for flag in command.flags]
        arguments += [_quoted(f"1:value:({' '.join(command.values)})")] if command.values else []
        lines = " \\\n        ".join(arguments)
        cases.append(f"    {command.name})\n      _arguments \\\n        {lines}\n      ;;")
    described = "\n".join(
        f"    {_quoted(f'{command.name}:{command.help}')}" for command in commands
    )
    return f"""\
#compdef {PROGRAM}
# Completion of {PROGRAM} for zsh, written by `{PROGRAM} completion zsh`.
_azure_batch_exporter() {{
  local -a commands=(
{described}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
{chr(10).join(cases)}
  esac
}}
if [[ $funcstack[1] == _azure_batch_exporter ]]; then
  _azure_batch_exporter "$@"
else
  compdef _azure_batch_exporter {PROGRAM}
fi
"""


def _fish(commands: list[Command]) -> str:
    lines = [
        f"# Completion of {PROGRAM} for fish, written by `{PROGRAM} completion fish`.",
        f"complete -c {PROGRAM} -f",
    ]
    for command in commands:
        lines.append(
            f"complete -c {PROGRAM} -n __fish_use_subcommand -a {command.name}"
            f" -d {_quoted(command.help)}"
        )
        inside = f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {command.name}'"
        if command.values:
            lines.append(f"{inside} -a '{' '.join(command.values)}'")
        for flag in command.flags:
            value = ""
            if flag.takes_file:
                value = " -r -F"
            elif flag.values:
                value = f" -x -a '{' '.join(flag.values)}'"
            elif flag.takes_value:
                value = " -x"
            lines.append(f"{inside} -l {flag.name[2:]}{value} -d {_quoted(flag.help)}")
    return "\n".join(lines) + "\n"


SHELLS: Mapping[str, Callable[[list[Command]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
