"""The log: what may be chosen of it, and where it goes."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import Literal, TextIO

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")

LogFormat = Literal["logfmt", "json"]
FORMATS: tuple[LogFormat, ...] = ("logfmt", "json")


def dropped() -> int:
    """Lines of the log that were dropped because nobody read it."""
    return sum(getattr(handler, "dropped", 0) for handler in logging.getLogger().handlers)


def _is_journal(stream: TextIO) -> bool:
    """Whether what is written to a stream goes to systemd's journal.

    JOURNAL_STREAM alone does not tell: whoever started the process may have sent its standard
    error elsewhere.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # it is no file
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def configure(
    level: Level, format_: LogFormat, stream: TextIO | None = None, *, is_service: bool = False
) -> None:
    """Send all log lines to `stream` (standard error).

    `is_service`: never wait for whoever reads standard error; see `dropped`.
    """
    # Imported here: exporter.config imports pydantic, which --help does not need.
    from exporter.service.log_lines import JournalFormatter, JsonFormatter, LogfmtFormatter

    stream = stream or sys.stderr
    handler: logging.Handler = logging.StreamHandler(stream)
    if is_service:
        from exporter.service.log_writer import BackgroundHandler

        with suppress(OSError):  # a stream that is no file, as tests have it
            handler = BackgroundHandler(stream.fileno())
    formatter = JsonFormatter() if format_ == "json" else LogfmtFormatter()
    handler.setFormatter(JournalFormatter(formatter) if _is_journal(stream) else formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # These libraries log details at info.
    for name in ("aiohttp", "azure", "asyncio", "msal"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    # What azure-identity warns of is in our own lines, once and with a cure. At debug it would log
    # the claims of tokens.
    identity = logging.WARNING if level == "debug" else logging.ERROR
    logging.getLogger("azure.identity").setLevel(identity)
