"""What stands in the pages of docs/: blocks of code, each with the heading that it stands under."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


@dataclass(frozen=True)
class Block:
    """`language`: as it is named behind the opening fence; empty for none."""

    heading: str
    language: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page of docs/, in turn."""
    found = re.finditer(
        r"^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w*)\n(?P<text>.*?)^```$",
        (DOCS / page).read_text(),
        re.MULTILINE | re.DOTALL,
    )
    heading = ""
    for each in found:
        if each["heading"] is not None:
            heading = each["heading"]
        else:
            yield Block(heading, each["language"], each["text"])
