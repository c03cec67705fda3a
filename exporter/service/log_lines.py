"""A log line in the shape of Prometheus' own: logfmt or JSON.

Secrets in a message, a field or a traceback are masked, also those of libraries.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
from typing import ClassVar

from exporter.config.redaction import redact

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


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) and text.isprintable() else json.dumps(text)
