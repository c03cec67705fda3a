"""Errors of the operating system as text with a cure."""

from __future__ import annotations

import errno
import re
import socket

_CURES = {
    errno.EADDRINUSE: "stop what has the port, or choose another one",
    errno.EADDRNOTAVAIL: "choose an address that this machine has, or :PORT for all of them",
    errno.EACCES: "allow it to this user; ports below 1024 need a right of their own",
    errno.ENOSPC: "make room on that disk",
    errno.EROFS: "choose a place that is not read-only",
    errno.EMFILE: "raise the limit of open files, ulimit -n",
    socket.EAI_NONAME: "see how the host is spelled, or write its address",
}


def explain(error: OSError) -> str:
    """One line: what failed, where, and what to do."""
    text = re.sub(r"^\[[Ee]rrno -?\d+\] ", "", error.strerror or str(error))
    if error.filename is not None:
        text = f"{error.filename}: {text}"
    cure = _CURES.get(error.errno) if error.errno is not None else None
    return f"{text}: {cure}" if cure else text
