"""`scrape`: poll everything once, and print the metrics or write them to a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from exporter.cli import flags
from exporter.cli.parsing import CommandParser, OneOf, describe
from exporter.service import logs

FORMATS = ("text", "openmetrics")

OF_A_PROCESS = ("process_*", "python_*")
"""Left out: this process is over when they are read, and node_exporter has them of its own."""


def define(parser: CommandParser) -> None:
    """The command and its flags."""
    describe(
        parser,
        _scrape,
        """
        Polls every account once, prints the metrics and ends. On a terminal it shows how far it
        is, on standard error.

        With --output the metrics go to a file instead, which is replaced whole or not at all: so
        node_exporter's textfile collector can read it while a timer runs this command. What
        process_* and python_* tell is left out. Counters begin at 0 each time, but with a
        state_file. Where an account fails the file is written all the same, with azure_batch_up 0.
        One such file to a node_exporter: of two, what
        the exporter tells of itself would be there twice, an error in its log with each scrape.
        """,
        examples={
            "azure-batch-exporter scrape --config.file=config.yaml": "to have a look",
            "azure-batch-exporter scrape --config.file=config.yaml"
            " --output=/var/lib/node_exporter/textfile/azure_batch.prom": "for node_exporter",
        },
        files=flags.CONFIG_FILES,
        environment=flags.ENVIRONMENT,
        status={
            "0": "every account was polled",
            "1": "an account failed, or the file could not be written",
            "2": "usage or configuration",
        },
    )
    flags.add_config(parser, required=True)
    parser.add_argument(
        "--format",
        type=OneOf(FORMATS),
        default="text",
        metavar="|".join(FORMATS),
        help="text is Prometheus' format 0.0.4, openmetrics is 1.0 (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="F",
        help="write them to this file, at once and whole, instead of standard output",
    )
    flags.add_shard(parser)
    flags.add_log_flags(parser)


def _scrape(options: argparse.Namespace) -> int:
    import asyncio

    from exporter.cli import atomic_file, progress
    from exporter.config import Config
    from exporter.exposition.body import Format
    from exporter.service.families import load_config
    from exporter.service.service import Service, open_service

    def exposition(service: Service) -> bytes:
        format_ = {"text": Format.TEXT, "openmetrics": Format.OPENMETRICS}[options.format]
        state = service.exposition.body(format_)
        return state.plain + service.telemetry.text(format_, state.series)

    async def scrape(loaded: Config) -> bool:
        left_out = (*loaded.exclude_metrics, *OF_A_PROCESS)
        wanted = loaded.model_copy(update={"exclude_metrics": left_out})
        async with open_service(wanted, revision=flags.revision(), shard=options.shard) as service:
            async with progress.shown(service, line):
                await service.run_once()
                await service.settle()
            text = exposition(service)
            if options.output is not None:
                atomic_file.write(options.output, text)
            else:
                sys.stdout.buffer.write(text)
                sys.stdout.buffer.flush()
            return all(account.is_up for account in service.store.accounts.values())

    line = progress.Line(sys.stderr) if sys.stderr.isatty() else None
    logs.configure(options.log_level, options.log_format, line)
    if options.output is not None:
        atomic_file.check_place(options.output)
    return 0 if asyncio.run(scrape(load_config(options.config_file))) else 1
