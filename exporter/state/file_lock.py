"""A file for one process alone."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from exporter.config.problems import ConfigError


def lock(path: Path) -> IO[str] | None:
    """A lock that ends with the process, however that ends.

    ConfigError where another process has it; None where nothing can be written there, which who
    opens the file itself will notice.
    """
    try:
        file = path.with_name(f"{path.name}.lock").open("a")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ConfigError(
            (f"{path}: this state file is in use by another process: give each its own",)
        ) from error
    return file
