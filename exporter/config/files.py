"""Reads files that users name, without waiting for what is no file."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from pathlib import Path

LIMIT = 16 * 2**20
"""Bytes of a file that are read at most."""


def read(file: Path, wait: float = 0.0) -> bytes:
    """The content of a regular file.

    `wait`: seconds in which a pipe is to end, such as /dev/stdin; 0 refuses pipes. OSError says
    what is wrong: opened without care, a pipe that nobody writes to would never return.
    """
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:
        mode = os.fstat(opened.fileno()).st_mode
        if stat.S_ISFIFO(mode) and wait > 0:
            content = _from_pipe(opened.fileno(), time.monotonic() + wait)
        elif stat.S_ISREG(mode):
            content = opened.read(LIMIT + 1)
        elif stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, "Is a directory")
        else:
            raise OSError(errno.EINVAL, "Not a regular file")
    if len(content) > LIMIT:
        raise OSError(errno.EFBIG, f"Larger than {LIMIT // 2**20} MiB")
    return content


def _from_pipe(pipe: int, end: float) -> bytes:
    content = b""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while len(content) <= LIMIT:
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            raise OSError(errno.ETIMEDOUT, "The pipe's writer does not end")
        part = os.read(pipe, 2**16)
        if not part:
            break
        content += part
    return content
