"""`check`: validate a configuration file, and with --online the accounts that it names."""

from __future__ import annotations

import argparse
import logging
import sys

from exporter.cli import flags
from exporter.service import logs

HELP = f"""\
Names every mistake in the file, with its line and a cure. Sends no request.

With --online it also signs in to each account, tries every operation that
polling needs, lists the jobs that each rule selects, and estimates the series
and requests that they will cost. It sends an account about 10 to 60 requests,
never more than 200, and ends within a minute. It changes nothing.

examples:
  azure-batch-exporter check --config.file=config.yaml
      before a commit
  azure-batch-exporter check --config.file=config.yaml --online
      before the first start: with the identity and from the machine that the
      exporter will have
  azure-batch-exporter check --config.file=F --online --format=json
      for a program: docs/check.md has the shape

{flags.ENVIRONMENT}

exit status:
  0  the file is valid, and --online found warnings at most
  1  an account cannot be polled as configured: what is missing was printed
  2  usage or configuration
"""


class _Warnings(logging.Handler):
    """What the configuration's loader warns of while this is entered."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text."""
        self.texts.append(record.getMessage())

    def __enter__(self) -> _Warnings:
        _loader_log.addHandler(self)
        _loader_log.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        _loader_log.removeHandler(self)
        _loader_log.propagate = True


_loader_log = logging.getLogger("exporter.config")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    flags.add_config(parser, required=True)
    help_ = "also ask the accounts, and estimate the cost"
    parser.add_argument("--online", help=help_, action="store_true")
    help_ = "of the report of --online (default: %(default)s)"
    parser.add_argument("--format", help=help_, choices=("text", "json"), default="text")


def run(options: argparse.Namespace) -> int:
    """Print what is wrong, and with --online the report."""
    from exporter.config.problems import ConfigError
    from exporter.config.redaction import redact
    from exporter.config.shard import WHOLE
    from exporter.service.service import load_config, state_path
    from exporter.state import file_lock

    if options.format == "json" and not options.online:
        raise ConfigError(("--format=json needs --online, whose report it prints",))
    with _Warnings() as warnings:
        loaded = load_config(options.config_file)
    if loaded.state_file is not None:
        path, where = state_path(loaded.state_file, WHOLE), f"{options.config_file}: state_file"
        if (text := file_lock.other_kind(path)) is not None:
            raise ConfigError((f"{where}: {text}",))
        if (text := file_lock.not_usable(path)) is not None:
            # Before a commit the file is checked on a machine that is not the exporter's.
            if options.online:
                raise ConfigError((f"{where}: {text}",))
            warnings.texts.append(f"{where}: {text}")
    texts = [redact(text) for text in warnings.texts]
    if not options.online:
        rules = sum(len(account.jobs) for account in loaded.accounts)
        found = f", {len(texts)} warning(s)" if texts else ""
        for text in texts:
            print(f"warning: {text}", file=sys.stderr)
        print(
            f"{options.config_file}: valid, {len(loaded.accounts)} account(s),"
            f" {rules} rule(s){found}"
        )
        return 0
    import asyncio

    import msgspec

    from exporter.cli.preflight.account_check import check_accounts
    from exporter.cli.preflight.report import as_text

    logs.configure("error", "logfmt")  # what libraries warn of is in the report
    report = asyncio.run(check_accounts(loaded, str(options.config_file), texts))
    if options.format == "json":
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        print(as_text(report))
    return 0 if report.ok else 1
