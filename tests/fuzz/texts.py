"""Texts of the service and of the configuration: masked, whatever stands before a secret."""

from __future__ import annotations

from exporter.config.redaction import redact

_SECRET = "S3NT1NEL"


def target(data: bytes) -> None:
    """Mask the text, and a secret on the line behind it."""
    text = data.decode("utf-8", "replace")[:2000]
    redact(text)
    if _SECRET not in redact(text):
        assert _SECRET not in redact(f"{text}\npassword={_SECRET}")
