"""The parameters of a query: what they may be, and what is wrong with those that are not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from multidict import MultiMapping


class BadQuery(Exception):
    """A query that cannot be answered; the text names the parameter and the cure."""


class Parameter(Protocol):
    """One parameter of a query. `required`: it must be there; else it has a `default`."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def default(self) -> Any: ...
    @property
    def required(self) -> bool: ...

    def parse(self, text: str) -> Any:
        """Its value; BadQuery says what is wrong with it."""

    def schema(self) -> dict[str, Any]:
        """What it may be, as JSON schema."""


@dataclass(frozen=True)
class Text:
    """Any text but an empty one, which is as if it were not there."""

    name: str
    description: str
    default: str | None = None
    required: bool = False

    def parse(self, text: str) -> str | None:
        if not text and self.required:
            raise BadQuery(f"{self.name} must not be empty")
        return text or self.default

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1} if self.required else {"type": "string"}


@dataclass(frozen=True)
class Choice:
    """One of some words; "" is as if it were not there."""

    name: str
    description: str
    words: tuple[str, ...]
    default: str | None = None
    required: bool = False

    def parse(self, text: str) -> str | None:
        if text and text not in self.words:
            raise BadQuery(f"{self.name} must be one of {', '.join(self.words)}, not {text[:80]!r}")
        return text or self.default

    def schema(self) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "string", "enum": [*self.words, ""]}
        return found | ({"default": self.default} if self.default else {})


@dataclass(frozen=True)
class Number:
    """A whole number from `least` to `most`."""

    name: str
    description: str
    least: int
    most: int
    default: int
    required: bool = False

    def parse(self, text: str) -> int:
        if re.fullmatch(r"[0-9]{1,9}", text) and self.least <= int(text) <= self.most:
            return int(text)
        raise BadQuery(
            f"{self.name} must be a number from {self.least} to {self.most}, not {text[:80]!r}"
        )

    def schema(self) -> dict[str, Any]:
        return {
            "type": "integer",
            "minimum": self.least,
            "maximum": self.most,
            "default": self.default,
        }


def parse(query: MultiMapping[str], parameters: Iterable[Parameter]) -> Mapping[str, Any]:
    """The values of a query by name. BadQuery says what is wrong with it."""
    known = {parameter.name: parameter for parameter in parameters}
    if unknown := sorted(query.keys() - known.keys()):
        listed = ", ".join(known) or "there are none"
        raise BadQuery(f"unknown parameter: {', '.join(unknown)[:200]}; known are: {listed}")
    values = {}
    for name, parameter in known.items():
        given = query.getall(name, [])
        if len(given) > 1:
            raise BadQuery(f"{name} stands {len(given)} times: give it once")
        if not given and parameter.required:
            raise BadQuery(f"{name} is missing: {parameter.description}")
        values[name] = parameter.parse(given[0]) if given else parameter.default
    return values
