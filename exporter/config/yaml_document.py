"""YAML with positions: the data of a file, and the line on which each path of it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from exporter.config.problems import ConfigError

Path = tuple[str | int, ...]
"""Where a value stands, e.g. ("accounts", 0, "name")."""


@dataclass(frozen=True)
class Document:
    """A YAML file that was read. `lines`: 1-based line of each path."""

    name: str
    data: Any
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """The line of `path`, or of the nearest part of it that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: Path, text: str) -> str:
        """`file:line: path: text`."""
        where = f"{self.name}:{self.line(path)}: "
        return f"{where}{format_path(path)}: {text}" if path else where + text


def format_path(path: Path) -> str:
    """`accounts[0].auth.key_file`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


_OF_SCALARS = (ValueError, LookupError, AttributeError, TypeError)
"""What yaml lets out of its constructors where a value does not fit its tag, as in `!!int x`."""


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def parse_yaml(text: str, name: str) -> Document:
    """Parse one document. ConfigError where it is no YAML or a key stands twice in a mapping."""
    try:
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise ConfigError((f"{name}:1: not valid YAML: {_line(error)}",)) from error
    try:
        root = loader.get_single_node()
        lines: dict[Path, int] = {}
        if root is None:
            return Document(name, None, lines)
        duplicates: list[tuple[Path, int]] = []
        _index(root, (), lines, duplicates)
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError((f"{name}:{line}: not valid YAML: {error.problem}",)) from error
    except (yaml.YAMLError, *_OF_SCALARS, RecursionError) as error:
        raise ConfigError((f"{name}:1: not valid YAML: {_line(error)}",)) from error
    finally:
        loader.dispose()
    if duplicates:
        raise ConfigError(
            tuple(
                f"{name}:{line}: {format_path(path)}: this key stands twice, the first time on line"
                f" {lines[path]}: keep one"
                for path, line in duplicates
            )
        )
    return Document(name, data, lines)


def _index(
    node: yaml.Node, path: Path, lines: dict[Path, int], duplicates: list[tuple[Path, int]]
) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _index(item, (*path, number), lines, duplicates)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            below = (*path, key.value)
            if key.value in seen:
                duplicates.append((below, key.start_mark.line + 1))
                continue
            seen.add(key.value)
            lines[below] = key.start_mark.line + 1
            _index(value, below, lines, duplicates)
