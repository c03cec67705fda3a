"""The page with the configuration in force."""

from __future__ import annotations

import yaml
from multidict import MultiMapping

from exporter.web.api.parameters import parse
from exporter.web.api.status_views import running_config
from exporter.web.backend import Backend
from exporter.web.pages.html import tag
from exporter.web.pages.layout import Links, page


async def show(service: Backend, given: MultiMapping[str], links: Links) -> str:
    """The page; it has no parameters."""
    parse(given, ())
    shown = running_config(service.config)
    text = yaml.safe_dump(shown.config, sort_keys=False, allow_unicode=True, width=100)
    return page(
        "Configuration",
        links,
        tag(
            "p",
            "What is in force, with all defaults. Secrets are never in the file, only where they"
            " are found.",
        ),
        tag("pre", text, tabindex="0", role="region", aria_label="Configuration", id="config",
            data_live=True),
        current="config",
    )  # fmt: skip
