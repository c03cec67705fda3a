"""Asking a running exporter for its health; for containers without curl."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request

TIMEOUT = 5.0
"""Seconds."""


def ask(url: str) -> tuple[bool, str]:
    """Whether the exporter at `url` is alive, and what to say of it.

    Alive is also what asks for credentials, by 401 or in the TLS handshake: it serves. Nothing is
    sent but the question, so nobody's certificate is checked.
    """
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT, context=unverified) as response:
            return True, response.read(200).decode("utf-8", "replace").strip()
    except urllib.error.HTTPError as error:
        if error.code == 401:
            return True, "Alive: it asks for a user and password."
        return False, f"{url}: {error}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        if "CERTIFICATE_REQUIRED" in str(error):  # an ssl.SSLError, by itself or in a URLError
            return True, "Alive: it asks for a client certificate."
        return False, f"{url}: {error}"
