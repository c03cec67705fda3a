"""`healthcheck`: ask a running exporter for its health."""

from __future__ import annotations

import argparse
import socket
import ssl
import sys
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, urlsplit

from exporter.cli import flags

TIMEOUT = 5.0
"""Seconds."""


HELP = """\
Asks a running exporter whether it can serve. One that asks for a password is
alive. No certificate is checked, because nothing but the question is sent.

examples:
  azure-batch-exporter healthcheck
      on port 10225 of this machine
  azure-batch-exporter healthcheck --url=https://127.0.0.1:10225/-/healthy
      with TLS
  azure-batch-exporter healthcheck --url=unix:/run/azure-batch-exporter.sock
      where it listens on a Unix socket
  azure-batch-exporter healthcheck --url=tcp://127.0.0.1:10225
      where clients need a certificate

exit status:
  0  alive
  1  not alive, or not to be reached
  2  usage
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    help_ = (
        "what to ask, http, https or unix:/path; tcp://host:port only connects"
        " (default: %(default)s)"
    )
    default = f"http://127.0.0.1:{flags.DEFAULT_PORT}/-/healthy"
    parser.add_argument("--url", help=help_, default=default)


def run(options: argparse.Namespace) -> int:
    """Print the answer."""
    is_alive, text = ask(options.url)
    print(text, file=sys.stdout if is_alive else sys.stderr)
    return 0 if is_alive else 1


def ask(url: str) -> tuple[bool, str]:
    """Whether the exporter at `url` is alive, and the text to print.

    `url`: http or https; unix:/path asks on a Unix socket; tcp://host:port only connects, for
    listeners that need a client certificate. An exporter that answers 401 is alive.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme == "tcp":
            socket.create_connection((parts.hostname, parts.port or 0), TIMEOUT).close()
            return True, "Alive: it takes connections."
        with closing(_connect(parts)) as connection:
            query = f"?{parts.query}" if parts.query else ""
            path = "/-/healthy" if parts.scheme == "unix" else parts.path or "/"
            connection.request("GET", path + query)
            response = connection.getresponse()
            text = response.read(200).decode("utf-8", "replace").strip()
    except (OSError, HTTPException, ValueError) as error:
        return False, f"{url}: {error}"
    if response.status == 401:
        return True, "Alive: it asks for a user and password."
    if not 200 <= response.status < 300:
        return False, f"{url}: HTTP Error {response.status}: {response.reason}"
    return True, text


def _connect(parts: SplitResult) -> HTTPConnection:
    """A connection, not yet open. ValueError where the URL is none."""
    if parts.scheme == "unix" and parts.path:
        return _UnixConnection(parts.path)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            "write http://host:port/path, https://host:port/path, unix:/path or tcp://host:port"
        )
    if parts.scheme == "http":
        return HTTPConnection(parts.hostname, parts.port or 80, timeout=TIMEOUT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return HTTPSConnection(parts.hostname, parts.port or 443, timeout=TIMEOUT, context=context)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)
