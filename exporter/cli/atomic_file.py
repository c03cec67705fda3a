"""Write a file so that a reader sees all of its old or all of its new content."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from exporter.config.problems import ConfigError

MODE = 0o644
"""The reader is seldom the writer: node_exporter runs as a user of its own."""


def check_place(path: Path) -> None:
    """ConfigError where no file can be put at `path`."""
    folder = path.parent
    if path.is_dir():
        raise ConfigError((f"{path}: is a folder: name a file in it",))
    if not folder.is_dir():
        raise ConfigError((f"{path}: cannot be written: there is no folder {folder}: make it",))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            (f"{path}: cannot be written: this user may not make files in {folder}: allow it",)
        )


def write(path: Path, data: bytes) -> None:
    """Replace the file. OSError where it cannot be written."""
    # In the same folder, because a move is atomic only within a file system. With another ending,
    # because node_exporter reads every file that ends in .prom.
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as file:
            os.fchmod(file.fileno(), MODE)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error
    finally:
        with suppress(OSError):
            scratch.unlink()
