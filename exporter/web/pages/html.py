"""HTML that is put together from elements: all text is escaped but what came from here.

There is no way to write markup as text, so no id or name can become markup either.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias
from urllib.parse import urlencode


class Html(str):
    """Markup that was made here."""

    __slots__ = ()


Child: TypeAlias = "Html | str | int | Iterable[Child] | None"
"""None: nothing."""

Attribute: TypeAlias = "str | float | bool | None"
"""True: without a value. None and False: not there."""

_VOID = frozenset({"input", "link", "meta"})


def tag(_name: str, *children: Child, **attributes: Attribute) -> Html:
    """One element. `class_` is class, `data_x` is data-x."""
    given = "".join([_attribute(key, value) for key, value in attributes.items()])
    if _name in _VOID:
        return Html(f"<{_name}{given}>")
    return Html(f"<{_name}{given}>{join(children)}</{_name}>")


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'


def join(children: Iterable[Child]) -> Html:
    """Elements and text, one after another."""
    return Html("".join([_text(child) for child in children]))


def _text(child: Child) -> str:
    if isinstance(child, Html):
        return child
    if child is None:
        return ""
    if isinstance(child, str | int):
        return html.escape(str(child))
    return join(child)


def link(text: Child, page: str, query: dict[str, str] | None = None, **more: Attribute) -> Html:
    """A link to one of our own pages. It is relative: it holds behind a proxy, too."""
    found = urlencode(query or {}, errors="replace")
    href = f"{page or './'}?{found}" if found else page or "./"
    return tag("a", text, href=href, **more)


def document(head: Iterable[Html], body: Iterable[Html], **attributes: Attribute) -> Html:
    """A whole page."""
    inside = join((tag("head", *head), tag("body", *body, **attributes)))
    return Html(f"<!DOCTYPE html>\n{tag('html', inside, lang='en')}\n")
