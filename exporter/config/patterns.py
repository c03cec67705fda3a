"""Regular expressions of users, matched in a time that grows with the length of the text only.

Their texts are ids of jobs. Whoever may create a job chooses its id, and with Python's own `re`
one id may stop the process.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import re2

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # it would write them to standard error itself

CACHED = 20_000
"""Texts of which is remembered whether they match."""

# RE2 takes it for text, Python and most others for a repetition.
_OPEN_REPETITION = re.compile(r"(?<!\\)(?:\\\\)*\{,\d*\}")

_CURE = (
    "the syntax is RE2, as in Prometheus: no look-ahead or look-behind, no back-references, no"
    " possessive or atomic groups"
)


class Pattern:
    """A compiled expression. ValueError says what is wrong with it, and the cure."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._compiled = _compiled(text)
        # The same ids come with each listing.
        self.groups = lru_cache(CACHED)(self._groups)

    @property
    def names(self) -> tuple[str, ...]:
        """The named groups."""
        return tuple(self._compiled.groupindex)

    def _groups(self, text: str) -> dict[str, str] | None:
        """What each named group matched, "" where it took no part; None: no match of all of it."""
        found = self._compiled.fullmatch(text)
        if found is None:
            return None
        return {name: value or "" for name, value in found.groupdict().items()}


def _compiled(text: str) -> Any:
    if repetition := _OPEN_REPETITION.search(text):
        written = repetition[0].lstrip("\\")
        raise ValueError(f"{written} is no repetition in RE2: write {{0{written[1:]}")
    try:
        return re2.compile(text, _OPTIONS)
    except re2.error as error:
        what = error.args[0]
        reason = what.decode(errors="replace") if isinstance(what, bytes) else str(what)
        cure = "any text is .*" if text.startswith("*") else _CURE
        raise ValueError(f"not a regular expression: {reason}; {cure}") from None
    except UnicodeEncodeError:
        raise ValueError("not a regular expression: it is not text") from None


def escape(text: str) -> str:
    """An expression that matches this text alone."""
    escaped: str = re2.escape(text)
    return escaped
