"""Label values that have one spelling in an account, whatever case the service writes them in.

Failure codes and pool ids: the service compares both without case, and writes `AllocationTimedout`
here and `AllocationTimedOut` there. Two spellings in labels would make two series of one thing.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Literal

from exporter.batch.failure_codes import DOCUMENTED
from exporter.batch.models import OTHER

MAX_CODES = 50
"""Codes of an account that become labels without being documented. Each makes series."""

MAX_POOLS = 10_000
"""Pool ids of an account that are remembered, the latest: auto pools come without end."""

MAX_LENGTH = 64
"""Characters of a word that may be a label, and of the service's pool ids."""

_is_word = re.compile(rf"[A-Za-z0-9]{{1,{MAX_LENGTH}}}").fullmatch

Spelling = tuple[Literal["code", "pool"], str]


class Spellings:
    """The codes and pool ids of one account, each as it was first seen.

    `learned`: what an earlier process learned, in that order. It must be saved, and no later than
    what has such a label: a restart would give the same run another one.
    """

    def __init__(self, learned: Iterable[Spelling] = ()) -> None:
        self._codes: dict[str, str] = {}
        self._pools: OrderedDict[str, str] = OrderedDict()  # its oldest entry is found at once
        self._new: list[Spelling] = []
        for kind, text in learned:
            (self._codes if kind == "code" else self._pools)[text.lower()] = text

    def code(self, given: str | None) -> str:
        """The label for a code of the service: a word, as it is documented or was first seen.

        `other` for what is no word, and for new codes beyond the first 50.
        """
        given = given or ""
        key = given.lower()
        known = DOCUMENTED.get(key) or self._codes.get(key)
        if known is not None:
            return known
        if len(self._codes) >= MAX_CODES or not _is_word(given):
            return OTHER
        self._codes[key] = given
        self._new.append(("code", given))
        return given

    def pool(self, given: str) -> str:
        """The pool id as it was first seen."""
        key = given.lower()
        known = self._pools.get(key)
        if known is not None or not 0 < len(given) <= MAX_LENGTH:
            return known or given
        self._pools[key] = given
        self._new.append(("pool", given))
        if len(self._pools) > MAX_POOLS:
            self._pools.popitem(last=False)
        return given

    @property
    def all(self) -> tuple[Spelling, ...]:
        """All that was learned, in order, to be saved."""
        codes: list[Spelling] = [("code", text) for text in self._codes.values()]
        return (*codes, *(("pool", text) for text in self._pools.values()))

    def take_new(self) -> tuple[Spelling, ...]:
        """What was learned since the last call, to be saved."""
        new, self._new = tuple(self._new), []
        return new
