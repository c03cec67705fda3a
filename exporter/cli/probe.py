"""Asking a running exporter for its health; for containers without curl."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.error
import urllib.request
from urllib.parse import urlsplit

TIMEOUT = 5.0
"""Seconds."""


def ask(url: str) -> tuple[bool, str]:
    """Whether the exporter at `url` is alive, and what to say of it.

    `url`: http or https; tcp://host:port only connects, where clients need a certificate. A 401
    is alive, too: who asks for a password serves. Nothing is sent but the question, so nobody's
    certificate is checked.
    """
    try:
        if url.startswith("tcp:"):
            parts = urlsplit(url)
            socket.create_connection((parts.hostname, parts.port or 0), TIMEOUT).close()
            return True, "Alive: it takes connections."
        unverified = ssl.create_default_context()
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE
        # The URL is the user's own, on the command line: what it may open, the user may.
        opened = urllib.request.urlopen(url, timeout=TIMEOUT, context=unverified)  # noqa: S310
        with opened as response:
            return True, response.read(200).decode("utf-8", "replace").strip()
    except urllib.error.HTTPError as error:
        if error.code == 401:
            return True, "Alive: it asks for a user and password."
        return False, f"{url}: {error}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return False, f"{url}: {error}"
