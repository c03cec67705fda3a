"""Whether a state file can be used, and the locks that keep it to one process."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

from exporter.config.problems import ConfigError

_SQLITE = b"SQLite format 3\0"


def other_kind(path: Path) -> str | None:
    """What is there instead of a state file, and the cure; None: nothing that is wrong."""
    with suppress(OSError, ValueError):
        if not stat.S_ISREG(path.stat().st_mode):
            return f"{path} is not a regular file: name another one"
        with path.open("rb") as file:
            if file.read(len(_SQLITE)) not in (b"", _SQLITE):
                return f"{path} is another kind of file: name one that only the exporter uses"
    return None


def not_usable(path: Path) -> str | None:
    """Why this process could not use a state file there, and the cure; None: it could."""
    try:
        path.stat()
    except FileNotFoundError:
        folder = path.parent
        if not folder.is_dir():
            return f"there is no folder {folder}: make it, writable for the exporter's user"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"no file can be made in {folder}: let the exporter's user write there"
        return None
    except (OSError, ValueError) as error:
        return f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}"
    if not os.access(path, os.R_OK | os.W_OK):
        return f"{path} cannot be read and written: give it to the exporter's user"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"files beside {path} cannot be made: let the exporter's user write in its folder"
    return None


def require_regular(path: Path) -> None:
    """ConfigError where something else than a file is here: it must not be put aside."""
    with suppress(OSError, ValueError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError((f"state_file: {other_kind(path)}",))


def lock(path: Path) -> IO[bytes] | None:
    """A lock beside the file; it ends with the process, however that ends.

    ConfigError where another process has it. None where the folder is not writable: opening the
    database then reports that.
    """
    return _locked(path, path.with_name(f"{path.name}.lock"), os.O_CREAT | os.O_RDWR)


def hold(path: Path, held: IO[bytes] | None) -> IO[bytes] | None:
    """A lock on the file itself, for the one beside it may be removed. `held`: the lock so far.

    ConfigError where another process has it. None where there is no file.
    """
    with suppress(OSError, ValueError):
        found = path.stat()
        if held is not None and os.path.samestat(found, os.fstat(held.fileno())):
            return held
    if held is not None:
        held.close()
    return _locked(path, path, os.O_RDWR)


def _locked(path: Path, locked: Path, flags: int) -> IO[bytes] | None:
    try:
        file = os.fdopen(os.open(locked, flags | os.O_NONBLOCK, 0o600), "r+b")
    except (OSError, ValueError):  # ValueError: a path that cannot be
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ConfigError(
            (f"{path}: this state file is in use by another process: give each its own",)
        ) from error
    return file
