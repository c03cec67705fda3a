"""Messages to systemd (sd_notify). Nothing is sent where systemd did not start the process."""

from __future__ import annotations

import os
import socket

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"
RELOADING = "RELOADING=1\nMONOTONIC_USEC={}"
"""With the monotonic time in microseconds. READY ends it."""


def watchdog_interval() -> float | None:
    """Seconds between two ALIVE messages, half of what systemd allows; None: it wants none."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    is_ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(allowed) / 1e6 / 2 if is_ours and allowed.isdecimal() and int(allowed) else None


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
            sender.sendto(message.encode(), address)
    except OSError:
        return  # systemd does not listen; the exporter works without it
