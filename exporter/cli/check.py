"""`check`: validate a configuration file, and with --online foretell what it will meet."""

from __future__ import annotations

import argparse

from exporter.cli import flags
from exporter.cli.parsing import CommandParser, OneOf, describe
from exporter.service import logs

FORMATS = ("text", "json")


def define(parser: CommandParser) -> None:
    """The command and its flags."""
    describe(
        parser,
        _check,
        """
        Names every mistake in the file, with its line and a cure, and asks nobody.

        With --online it also signs in to each account, tries every operation that polling will
        need, lists the jobs that each rule gets, and says what series and requests they will cost.
        It asks an account for some 10 to 60 things, never more than 200 and not for longer than a
        minute. Nothing is changed.
        """,
        examples={
            "azure-batch-exporter check --config.file=config.yaml": "before a commit",
            "azure-batch-exporter check --config.file=config.yaml --online": "before a start: with"
            " the identity and from the place that the exporter will have",
            "azure-batch-exporter check --config.file=F --online --format=json": "for a program:"
            " docs/check.md has the shape",
        },
        files=flags.CONFIG_FILES,
        environment=flags.ENVIRONMENT,
        status={
            "0": "the file is valid, and online nothing is wrong but what a warning tells",
            "1": "an account cannot be polled as it should: what is missing was printed",
            "2": "usage or configuration",
        },
    )
    flags.add_config(parser, required=True)
    parser.add_argument(
        "--online", action="store_true", help="ask the accounts, too, and foretell what it costs"
    )
    parser.add_argument(
        "--format",
        type=OneOf(FORMATS),
        default="text",
        metavar="|".join(FORMATS),
        help="of what --online prints (default: %(default)s)",
    )


def _check(options: argparse.Namespace) -> int:
    from exporter.service.families import load_config

    loaded = load_config(options.config_file)
    if not options.online:
        rules = sum(len(account.jobs) for account in loaded.accounts)
        print(f"{options.config_file}: valid, {len(loaded.accounts)} account(s), {rules} rule(s)")
        return 0
    import asyncio

    import msgspec

    from exporter.cli.preflight import table
    from exporter.cli.preflight.account_check import check_accounts

    logs.configure("error", "logfmt")  # what libraries warn of is in the report
    report = asyncio.run(check_accounts(loaded, str(options.config_file)))
    if options.format == "json":
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        print(table.render(report), end="")
    return 0 if report.ok else 1
