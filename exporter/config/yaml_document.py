"""YAML with positions: the data of a file, and the line on which each path of it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from exporter.config.problems import ConfigError
from exporter.config.redaction import redact

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
        """`file:line: path: text`. Secrets in path and text are masked."""
        text = redact(text)
        where = f"{self.name}:{self.line(path)}: "
        return f"{where}{format_path(path)}: {text}" if path else where + text


def format_path(path: Path) -> str:
    """`accounts[0].auth.key_file`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{redact(part)}"
    return text.removeprefix(".")


_SCALAR_ERRORS = (ValueError, LookupError, AttributeError, TypeError)
"""What yaml raises for a value that does not fit its tag, as in `!!int x`."""


class _Loader(yaml.SafeLoader):
    """Takes a date without quotes, as `api_version: 2025-06-01`, for text: no key has a date."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the base class
        first: [each for each in known if each[0] != "tag:yaml.org,2002:timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def parse_yaml(text: str, name: str) -> Document:
    """Parse one document. ConfigError if it is not YAML or a key stands twice in a mapping."""
    lines: dict[Path, int] = {}
    duplicates: list[tuple[Path, int]] = []
    data = None
    try:
        root = yaml.compose(text, _Loader)
        if root is not None:
            _index(root, (), lines, duplicates)
            data = _Loader("").construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(
            (f"{name}:{line}: not valid YAML: {redact(str(error.problem))}",)
        ) from error
    except (yaml.YAMLError, *_SCALAR_ERRORS, RecursionError) as error:
        message = " ".join(redact(str(error)).split()) or type(error).__name__
        raise ConfigError((f"{name}:1: not valid YAML: {message}",)) from error
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
    """Note the line of each path below a node; of a value in a mapping, that of its key."""
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _index(item, (*path, number), lines, duplicates)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            below, line = (*path, key.value), key.start_mark.line + 1
            if below in lines:
                duplicates.append((below, line))
            else:
                lines[below] = line
                _index(value, below, lines, duplicates)
