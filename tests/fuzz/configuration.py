"""The configuration: taken, or refused with lines that say where and why."""

from __future__ import annotations

from pathlib import Path

from exporter.config import Config, loader
from exporter.config.problems import ConfigError

NAME = "config.yaml"


def target(data: bytes) -> None:
    """Load a text; the folder of its files does not exist."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return  # `load` refuses it
    try:
        config = loader.parse(text, NAME, Path("/nowhere"))
    except ConfigError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.startswith(f"{NAME}:"), problem
    else:
        assert isinstance(config, Config)
