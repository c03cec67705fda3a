"""The parameters of a query: what they may be, and what is wrong with those that are not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from multidict import MultiMapping


class Refusal(Exception):
    """A request that cannot be answered; the text says why. `status`: of the answer."""

    status = 400


class BadQuery(Refusal):
    """A query that cannot be; the text names the parameter and the cure."""


class NotFound(Refusal):
    """What was asked for is not there; the text says what."""

    status = 404


@dataclass(frozen=True)
class Parameter:
    """One parameter of a query: any text. An empty text is as if it were not given.

    `required`: it must be given; else it has a `default`.
    """

    name: str
    description: str
    default: Any = None
    required: bool = False

    def parse(self, text: str) -> Any:
        """Its value; BadQuery says what is wrong with it."""
        if not text and self.required:
            raise BadQuery(f"{self.name} must not be empty")
        return text or self.default


@dataclass(frozen=True)
class Choice(Parameter):
    """One of some words."""

    words: tuple[str, ...] = ()

    def parse(self, text: str) -> Any:
        """The word, or the default."""
        if text and text not in self.words:
            raise BadQuery(f"{self.name} must be one of {', '.join(self.words)}, not {text[:80]!r}")
        return super().parse(text)


@dataclass(frozen=True)
class Number(Parameter):
    """A whole number from `least` to `most`."""

    least: int = 0
    most: int = 0

    def parse(self, text: str) -> Any:
        """The number."""
        if re.fullmatch(r"[0-9]{1,9}", text) and self.least <= int(text) <= self.most:
            return int(text)
        raise BadQuery(
            f"{self.name} must be a number from {self.least} to {self.most}, not {text[:80]!r}"
        )


def parse(query: MultiMapping[str], parameters: Iterable[Parameter]) -> Mapping[str, Any]:
    """The values of a query by name. BadQuery says what is wrong with it."""
    known = {parameter.name: parameter for parameter in parameters}
    if unknown := sorted(query.keys() - known.keys()):
        listed = f"known are: {', '.join(known)}" if known else "this path has no parameters"
        raise BadQuery(f"unknown parameter: {', '.join(unknown)[:200]}; {listed}")
    values = {}
    for name, parameter in known.items():
        given = query.getall(name, [])
        if len(given) > 1:
            raise BadQuery(f"{name} stands {len(given)} times: give it once")
        if not given and parameter.required:
            raise BadQuery(f"{name} is missing: {parameter.description}")
        values[name] = parameter.parse(given[0]) if given else parameter.default
    return values
