"""The commands of the program. Their modules are imported one by one, when they are needed."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A command. `module`: the module whose `define` adds its help and flags to a parser."""

    name: str
    summary: str
    module: str


COMMANDS = (
    Command("run", "poll the configured accounts and serve their metrics", "exporter.cli.run"),
    Command(
        "demo",
        "serve the metrics of a simulated account: nothing to configure",
        "exporter.cli.demo",
    ),
    Command("simulate", "serve a simulated Batch account alone", "exporter.cli.simulate"),
    Command("check", "validate a configuration file", "exporter.cli.check"),
    Command("scrape", "poll everything once and print the metrics", "exporter.cli.scrape"),
    Command(
        "healthcheck",
        "ask a running exporter for its health; for containers without curl",
        "exporter.cli.healthcheck",
    ),
)
