"""`scrape`: poll everything once, and print the metrics or write them to a file."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli import flags
from exporter.cli.parsing import revision
from exporter.service import logs

if TYPE_CHECKING:
    from exporter.config import Config

log = logging.getLogger(__name__)

PROGRESS_INTERVAL = 10.0
"""Seconds between two log lines about the progress."""

OF_A_PROCESS = ("process_*", "python_*")
"""Left out: this process ends before they are read, and node_exporter has its own."""

HELP = f"""\
Polls every account once, prints the metrics and ends. A large account takes a
while: the progress is logged every 10 seconds.

With --output it replaces a file, whole or not at all, for node_exporter's
textfile collector: one such file only, because two would have metrics of the
same names. process_* and python_* are left out. Counters start at 0 each time,
unless there is a state_file. Where an account fails, azure_batch_up is 0.

examples:
  azure-batch-exporter scrape --config.file=config.yaml
      to have a look
  azure-batch-exporter scrape --config.file=config.yaml \\
      --output=/var/lib/node_exporter/textfile/azure_batch.prom
      for node_exporter

{flags.ENVIRONMENT}

exit status:
  0  every account was polled
  1  an account failed, or the file could not be written
  2  usage or configuration
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    flags.add_config(parser, required=True)
    help_ = "text is Prometheus' format 0.0.4, openmetrics is 1.0 (default: %(default)s)"
    parser.add_argument("--format", help=help_, choices=("text", "openmetrics"), default="text")
    help_ = "write the metrics to this file, all at once, instead of standard output"
    parser.add_argument("--output", help=help_, type=Path, metavar="F")
    flags.add_shard(parser)
    flags.add_log_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Poll once, and print or write the metrics."""
    import asyncio

    from exporter.cli import atomic_file
    from exporter.service.service import load_config

    logs.configure(options.log_level, options.log_format)
    if options.output is not None:
        atomic_file.check_place(options.output)
    text, is_up = asyncio.run(_scrape(load_config(options.config_file), options))
    if options.output is not None:
        atomic_file.write(options.output, text)
    else:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    return 0 if is_up else 1


async def _scrape(config: Config, options: argparse.Namespace) -> tuple[bytes, bool]:
    """The metrics, and whether every account was polled."""
    import asyncio

    from exporter.exposition.body import Format
    from exporter.service.service import Service, open_service

    async def log_progress(service: Service) -> None:
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL)
            log.info("still polling", extra=service.progress)

    excluded = (*config.exclude_metrics, *OF_A_PROCESS)
    config = config.model_copy(update={"exclude_metrics": excluded})
    async with open_service(config, revision=revision(), shard=options.shard) as service:
        service.store.count_as_read()  # the run before has put it out
        progress = asyncio.create_task(log_progress(service))
        await service.run_once()
        progress.cancel()
        await service.settle()
        format_ = Format.OPENMETRICS if options.format == "openmetrics" else Format.TEXT
        state = service.exposition.body(format_)
        text = state.plain + service.telemetry.text(format_, state.series)
        return text, all(state.is_up for state in service.store.accounts.values())
