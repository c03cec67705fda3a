"""Messages to systemd (sd_notify), and the sockets that it opens (socket activation).

Nothing is sent where systemd did not start the process.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

from exporter.config.problems import ConfigError

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"
RELOADING = "RELOADING=1\nMONOTONIC_USEC={}"
"""With the monotonic time in microseconds. What `reloaded` returns ends it."""

_FIRST = 3
"""The file descriptor of the first socket that systemd hands over."""


def watchdog_interval() -> float | None:
    """Seconds between two ALIVE messages, half of what systemd allows; None: it wants none."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    is_ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(allowed) / 1e6 / 2 if is_ours and allowed.isdecimal() and int(allowed) else None


def sockets() -> tuple[socket.socket, ...]:
    """The sockets on which systemd already listens for this process. ConfigError: there are none.

    They are taken once: programs that this process starts do not get them.
    """
    names = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    pid, count, _ = (os.environ.pop(name, "") for name in names)
    if pid != str(os.getpid()) or not count.isdecimal() or not int(count):
        text = "systemd has handed over no socket: start this service by its .socket unit"
        raise ConfigError((f"--web.systemd-socket: {text}",))
    found = []
    for number in range(_FIRST, _FIRST + int(count)):
        try:
            each = socket.socket(fileno=number)
            is_listening = each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            is_listening = False
        if not is_listening or each.type != socket.SOCK_STREAM:
            text = "is no stream socket that listens: write ListenStream= without Accept=yes"
            raise ConfigError((f"--web.systemd-socket: file descriptor {number} {text}",))
        each.set_inheritable(False)
        found.append(each)
    return tuple(found)


def reloaded(problems: Sequence[str]) -> str:
    """The message that a reload has ended.

    `problems`: why the configuration was refused; empty: it was not.
    systemd knows no reload that fails. It shows STATUS in `systemctl status` and ERRNO in
    `systemctl show --property=StatusErrno`.
    """
    number, status = 0, "The configuration was reloaded."
    if problems:
        number, more = errno.EINVAL, f" (and {len(problems) - 1} more)" if problems[1:] else ""
        status = f"The configuration was refused, the old one is in force: {problems[0]}{more}"
    return f"{READY}\nERRNO={number}\nSTATUS={' '.join(status.split())}"


def notify(message: str) -> None:
    """Send a message to the socket in NOTIFY_SOCKET, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address[0] == "@":  # the abstract namespace
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(message.encode("utf-8", "replace"), address)
    except OSError:
        return  # systemd does not listen; the exporter works without it
