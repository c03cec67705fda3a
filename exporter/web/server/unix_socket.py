"""Listening sockets that are files: a proxy on the same machine connects, and nobody else."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

MODE = 0o660
"""The user and the group of the exporter may connect."""

_PATIENCE = 1.0
"""Seconds to find out whether somebody else listens."""


class UnixSocket(socket.socket):
    """A socket at a path, which it removes once it is closed."""

    def __init__(self, path: Path, backlog: int) -> None:
        """Listen at `path`. OSError where that cannot be.

        A file that a process left there when it was killed is replaced.
        """
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._path = path
        self._file: tuple[int, int] | None = None
        try:
            if _is_left_behind(path):
                path.unlink(missing_ok=True)
            self.bind(os.fspath(path))
            self._file = _file(path)
            path.chmod(MODE)  # nobody connects before it listens
            self.listen(backlog)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close it, and remove its file, unless another process has replaced it."""
        super().close()
        with suppress(OSError):
            if self._file is not None and self._file == _file(self._path):
                self._path.unlink()
        self._file = None


def _file(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _is_left_behind(path: Path) -> bool:
    """Whether this is a socket on which nobody listens."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_PATIENCE)
        try:
            client.connect(os.fspath(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            pass  # somebody listens, but is busy or lets nobody in
    return False
