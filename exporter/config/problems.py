"""What is wrong with a configuration, and what a misspelled word was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(Exception):
    """The configuration cannot be used: exit status 2.

    `problems`: one line each, with file, line, key and cure.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that is most like the word, in any case; None if none is near."""
    lower = {name.lower(): name for name in sorted(known)}
    near = difflib.get_close_matches(word.lower(), lower, n=1)
    return lower[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`: did you mean NAME?`, or "" if no name is near."""
    near = nearest(word, known)
    return f": did you mean {near}?" if near is not None else ""
