"""`run`: poll the configured accounts and serve their metrics."""

from __future__ import annotations

import argparse

from exporter.cli import flags
from exporter.cli.parsing import revision
from exporter.service import logs

HELP = f"""\
Polls the jobs of the configured accounts in the background and serves their
metrics to Prometheus. A scrape never asks Azure. Runs until SIGTERM or SIGINT.
SIGHUP reloads the configuration: all of it or, where something is wrong,
nothing.

examples:
  azure-batch-exporter run --config.file=config.yaml
      serves on port 10225
  azure-batch-exporter run --config.file=config.yaml --shard=0/4
      polls a quarter of the jobs; three more processes poll the others

{flags.ENVIRONMENT}
  {flags.DOCS_VARIABLE}
                         where docs/ can be read: the page links there

{flags.EXIT_STATUS}
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    flags.add_config(parser, required=False)
    flags.add_shard(parser)
    flags.add_log_flags(parser)
    flags.add_web_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal stops the process."""
    import asyncio
    from dataclasses import replace
    from functools import partial

    from exporter.config import Config
    from exporter.config.problems import ConfigError
    from exporter.service import open_files, process
    from exporter.service.service import load_config, open_service

    if options.config_file is None:
        raise ConfigError(
            (
                "azure-batch-exporter run needs --config.file=F, a YAML file that names the Batch"
                " accounts to poll. config.example.yaml shows every key; azure-batch-exporter demo"
                " runs without a configuration.",
            )
        )

    async def serve(loaded: Config) -> None:
        stop = process.stop_on_signals()
        listener = flags.listener(options)
        files = open_files.divide(open_files.raise_limit(), listener.limits.connections)
        limits = replace(listener.limits, connections=files.clients)
        async with open_service(
            loaded, revision=revision(), shard=options.shard, connections=files.polls
        ) as service:
            await process.run(service, replace(listener, limits=limits), load, stop)

    logs.configure(options.log_level, options.log_format, is_service=True)
    load = partial(load_config, options.config_file)
    asyncio.run(serve(load()))
    return 0
