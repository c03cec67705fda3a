"""Reports the state of the process to systemd (sd_notify), if systemd asks for it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Sends messages to the socket in NOTIFY_SOCKET; does nothing where there is none.

    `watchdog_interval`: seconds between two heartbeats, half of what systemd allows; None: it asks
    for none.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self.watchdog_interval: float | None = None
        allowed = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        if self._address and allowed.isdecimal() and int(allowed) and is_ours:
            self.watchdog_interval = int(allowed) / 1e6 / 2

    def ready(self) -> None:
        """The process serves."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A configuration is being loaded; `ready` ends that."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The process ends."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """A heartbeat."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # An address in the abstract namespace is written with an at sign.
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(), address)
        except OSError:
            return  # systemd does not listen, which changes nothing here
