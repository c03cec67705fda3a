"""The names of all metrics, and configuration that is checked against them."""

from __future__ import annotations

from pathlib import Path

from exporter.collectors import tables
from exporter.config import Config, loader
from exporter.service.telemetry import ROWS

FAMILIES = frozenset(
    [row.name for table in tables().values() for row in table.metrics] + [row.name for row in ROWS]
)
"""Every family of the exporter's own, `process_*` and `python_*` left out."""


def load_config(file: Path) -> Config:
    """Read and check a configuration file. ConfigError names every problem, as loader.load does."""
    return loader.load(file, FAMILIES)
