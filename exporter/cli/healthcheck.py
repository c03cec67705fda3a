"""`healthcheck`: ask a running exporter for its health."""

from __future__ import annotations

import argparse
import sys

from exporter.cli import flags
from exporter.cli import probe as healthcheck
from exporter.cli.parsing import Commands, add_command


def add(commands: Commands) -> None:
    """The command and its flags."""
    parser = add_command(
        commands,
        "healthcheck",
        _healthcheck,
        "ask a running exporter for its health; for containers without curl",
        """
        Asks a running exporter whether it can serve. One that asks for a password is alive.
        Nobody's certificate is checked, for nothing but the question is sent.
        """,
        examples={
            "azure-batch-exporter healthcheck": "on port 10225 of this machine",
            "azure-batch-exporter healthcheck --url=https://127.0.0.1:10225/-/healthy": "with TLS",
            "azure-batch-exporter healthcheck --url=tcp://127.0.0.1:10225": "where clients need a"
            " certificate",
        },
        status={"0": "alive", "1": "not alive, or not to be reached", "2": "usage"},
    )
    parser.add_argument(
        "--url",
        default=f"http://127.0.0.1:{flags.DEFAULT_PORT}/-/healthy",
        help="what to ask, http or https; tcp://host:port only connects (default: %(default)s)",
    )


def _healthcheck(options: argparse.Namespace) -> int:
    is_alive, text = healthcheck.ask(options.url)
    print(text, file=sys.stdout if is_alive else sys.stderr)
    return 0 if is_alive else 1
