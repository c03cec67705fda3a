"""HTML from templates and elements: all text is escaped except what these functions returned.

Markup is never written as text, so no id or name can become markup.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from functools import cache
from importlib import resources
from string import Template
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


def render(template: str, /, **values: Child) -> Html:
    """A file of templates/ with its values; their text is escaped, in attributes too."""
    return Html(_template(template).substitute({key: _text(each) for key, each in values.items()}))


@cache
def _template(name: str) -> Template:
    file = resources.files(__package__).joinpath("templates", f"{name}.html")
    return Template(file.read_text("utf-8").rstrip("\n"))
