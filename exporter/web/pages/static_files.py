"""Style, script and icon. Their paths have a digest of the content: browsers may keep them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class StaticFile:
    """`path`: relative to the pages."""

    path: str
    content_type: str
    content: bytes


def _load(name: str, content_type: str) -> StaticFile:
    content = resources.files(__package__).joinpath("static", name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:12]
    return StaticFile(f"static/{digest}/{name}", content_type, content)


STYLE = _load("page.css", "text/css; charset=utf-8")
SCRIPT = _load("page.js", "text/javascript; charset=utf-8")
ICON = _load("icon.svg", "image/svg+xml")

STATIC = {file.path: file for file in (STYLE, SCRIPT, ICON)}
