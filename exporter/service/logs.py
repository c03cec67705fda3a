"""Log lines in the shape of Prometheus' own: logfmt or JSON, on standard error.

Secrets in a message, a field or a traceback are masked, also those of libraries.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import re
import sys
from contextlib import suppress
from typing import ClassVar, Literal, TextIO

from exporter.batch.redaction import redact

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")

LogFormat = Literal["logfmt", "json"]
FORMATS: tuple[LogFormat, ...] = ("logfmt", "json")


MAX_TEXT = 2000
"""Characters of a message or a value that are logged: both may hold text of the service."""

MAX_TRACEBACK = 20_000
"""Characters of a traceback that are logged."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN = re.compile(r"[^\s\"=\\]+")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
    fields: dict[str, object] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname,
        "source": record.name,
        "msg": redact(record.getMessage())[:MAX_TEXT],
    }
    fields |= {
        name: value if isinstance(value, int | float) else redact(str(value))[:MAX_TEXT]
        for name, value in vars(record).items()
        if name not in _STANDARD
    }
    if record.exc_info:
        traceback = logging.Formatter().formatException(record.exc_info)
        fields["traceback"] = redact(traceback)[:MAX_TRACEBACK]
    return fields


class LogfmtFormatter(logging.Formatter):
    """`time=… level=INFO msg="…" account=…`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the values hold."""
        return " ".join(f"{name}={_quoted(value)}" for name, value in _fields(record).items())


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the values hold."""
        return json.dumps(_fields(record), default=str)


def dropped() -> int:
    """Lines of the log that were dropped because nobody read it."""
    return sum(getattr(handler, "dropped", 0) for handler in logging.getLogger().handlers)


class JournalFormatter(logging.Formatter):
    """Another formatter's line behind its priority, which systemd's journal takes: `<4>time=…`."""

    _PRIORITIES: ClassVar = {
        logging.CRITICAL: 2,
        logging.ERROR: 3,
        logging.WARNING: 4,
        logging.INFO: 6,
        logging.DEBUG: 7,
    }

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the values hold."""
        priority = self._PRIORITIES.get(record.levelno, 6)
        return f"<{priority}>{self._inner.format(record)}"


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


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) and text.isprintable() else json.dumps(text)


def configure(
    level: Level, format_: LogFormat, stream: TextIO | None = None, *, is_service: bool = False
) -> None:
    """Send all log lines to `stream` (standard error).

    `is_service`: never wait for whoever reads standard error; see `dropped`.
    """
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
