"""Files that whoever reads them sees whole: as they were before, or as they are now."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from exporter.config.problems import ConfigError

MODE = 0o644
"""Whoever reads the file is seldom who writes it: node_exporter runs as a user of its own."""


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
    """Put `data` there in place of what was there, and on the disk. OSError where it cannot be."""
    # In the same folder, for only within a file system is a move atomic; and with another ending,
    # for collectors of files take what ends like the file itself.
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as file:
            os.fchmod(file.fileno(), MODE)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException as error:
        with suppress(OSError):
            scratch.unlink()
        if isinstance(error, OSError):
            # Named as who asked for it knows it.
            raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # or a crash may bring the old name back
    finally:
        os.close(folder)
