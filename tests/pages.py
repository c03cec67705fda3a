"""The pages that people read, as a Markdown parser sees them: code, links, headings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent

PAGES = {
    str(page.relative_to(ROOT)): page
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md")
    for page in sorted(ROOT.glob(pattern))
}
"""Every page, by its path in the repository."""

RUNBOOKS = frozenset(page for page in PAGES if page.startswith("deploy/runbooks/Azure"))
"""Whoever reads them has an account that is out of order: their commands are about that."""

_PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


@dataclass(frozen=True)
class Block:
    """Code that stands by itself. `language`: of the fence; None: it is indented instead.

    `heading`: the one that it stands under.
    """

    page: str
    line: int
    language: str | None
    text: str
    heading: str = ""

    @property
    def is_commands(self) -> bool:
        """Whether it is to be typed into a shell."""
        return self.language == "sh"

    @property
    def needs(self) -> str | None:
        """What it needs that is not here: its first line says so, `# needs Azure`."""
        found = re.match(r"# needs (.+)\n", self.text)
        return found[1] if found else None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def tokens(page: str) -> list[Token]:
    """A page, parsed."""
    return _PARSER.parse(PAGES[page].read_text())


def inline(page: str, kind: str) -> Iterator[Token]:
    """What stands within the text of a page: `link_open`, `image`, `code_inline`, `text` …"""
    for token in tokens(page):
        for child in token.children or ():
            if child.type == kind:
                yield child
            if child.type == "image":
                yield from (each for each in child.children or () if each.type == kind)


def blocks(page: str) -> list[Block]:
    """The blocks of code of a page, in their order."""
    found: list[Block] = []
    heading = ""
    parsed = tokens(page)
    for token, following in pairwise((*parsed, Token("", "", 0))):
        if token.type == "heading_open":
            heading = following.content
        elif token.type in ("fence", "code_block"):
            language = token.info.strip() if token.type == "fence" else None
            line = (token.map or [0])[0] + 1
            found.append(Block(page, line, language, token.content, heading))
    return found


def links(page: str) -> Iterator[str]:
    """Where the links and pictures of a page lead."""
    yield from (str(link.attrs["href"]) for link in inline(page, "link_open"))
    yield from (str(image.attrs["src"]) for image in inline(page, "image"))


def anchors(page: str) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    parsed = tokens(page)
    for opening, content in pairwise(parsed):
        if opening.type == "heading_open":
            shown = "".join(child.content for child in content.children or ())
            slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found
