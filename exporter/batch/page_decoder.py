"""Pages of a list, decoded so that a record that cannot be read costs no other one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from msgspec.json import Decoder

from exporter.batch.models import MAX_PAGE, Page

T = TypeVar("T")

Decode = Callable[[bytes | bytearray], T]
"""Decodes the body of an answer, or raises ValueError."""

MAX_ESCAPES = 150_000
"""Backslashes in a page that has a record that cannot be read."""

Decoded = tuple[Page[T], list[str]]
"""A page, and for each record that was left out what is wrong with it, and where."""


class RawPage(msgspec.Struct, frozen=True):
    """A page whose records are not decoded yet."""

    value: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=MAX_PAGE)] | None
    next_link: str | None = msgspec.field(default=None, name="odata.nextLink")


_RAW = Decoder(RawPage)

_ESCAPE = re.compile(
    rb"""\\(?: u[dD][89abAB][0-9a-fA-F]{2} \\u[dD][c-fC-F][0-9a-fA-F]{2}
    | (?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2}) | . )""",
    re.VERBOSE | re.DOTALL,
)
"""An escape in JSON. Half of a surrogate pair is what is left of a text that was cut within one."""


def page_decoder(record: type[T]) -> Decode[Decoded[T]]:
    """A function that decodes a page of such records. It raises ValueError for what is no page."""
    # Not strict: int64 is in quotes on the wire.
    whole = Decoder(Page[record], strict=False)  # type: ignore[valid-type]
    single = Decoder(record, strict=False)

    def decode(body: bytes | bytearray) -> Decoded[T]:
        try:
            return whole.decode(body), []
        except ValueError:
            if body.count(b"\\") > MAX_ESCAPES:
                raise
            raw = _RAW.decode(_ESCAPE.sub(_whole_character, body))
        records: list[T] = []
        problems: list[str] = []
        for number, each in enumerate(raw.value or ()):
            try:
                records.append(single.decode(each))
            except ValueError as error:
                problems.append(_at(number, str(error)))
        return Page(tuple(records), raw.next_link), problems

    return decode


def _whole_character(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape["half"] else escape[0]


def _at(number: int, text: str) -> str:
    """What is wrong with a record, its path as that of the whole page."""
    problem, _, path = text.partition(" - at `$")
    return f"{problem} - at `$.value[{number}]{path or '`'}"
