"""The web configuration file: read at start, and again whenever it changes.

The certificate, key and CA files that it names are watched too. Invalid changes are logged once
and ignored.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from exporter.config.problems import ConfigError
from exporter.config.validation import read_text, validate
from exporter.config.yaml_document import Document, parse_yaml
from exporter.web.server.tls import TlsError, build_context
from exporter.web.server.web_config import ClientAuthType, TlsServerConfig, WebConfig

log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int] | None
"""Time of change in ns, size and inode of a file; None where there is none."""

_DEFAULT = WebConfig()

_FILES = ("cert_file", "key_file", "client_ca_file")


@dataclass(frozen=True)
class ClientTrust:
    """By which rules a client's certificate is verified.

    `allowed_sans`: it must have one of these names; None: any certificate will do.
    """

    auth_type: ClientAuthType = "NoClientCert"
    authorities: str = ""
    allowed_sans: frozenset[str] | None = None


@dataclass(frozen=True)
class Settings:
    """What is in force. `context`: of new connections; None for plain HTTP."""

    config: WebConfig = _DEFAULT
    context: ssl.SSLContext | None = None
    client_trust: ClientTrust = ClientTrust()

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """Headers of every answer. `Server` without a version: aiohttp would tell its own."""
        always = {"Server": "azure-batch-exporter", "X-Content-Type-Options": "nosniff"}
        return always | dict(self.config.http_server_config.headers.given)


CurrentSettings = Callable[[], Settings]
"""Returns the current settings; cheap enough for every request and connection."""


def load(file: Path) -> Settings:
    """Read and check a web configuration file and the files that it names.

    ConfigError names every problem with file, line and path. Relative paths in the file are
    relative to its folder.
    """
    return _build(_parse(file))


def _parse(file: Path, *, before: Settings | None = None) -> tuple[Document, WebConfig]:
    """The file with its lines, and its settings. `before`: the current settings, if any."""
    document = parse_yaml(read_text(file), str(file))
    if document.data is None:  # every line is a comment, if there is one
        if before is not None and before.config != WebConfig():
            # More likely somebody is still writing it than wants to remove all protection.
            raise ConfigError((f"{file}:1: the file is empty: write {{}} if you mean it",))
        document = replace(document, data={})
    if not isinstance(document.data, dict):
        raise ConfigError((f"{file}:1: the file must be a mapping, lines of key: value",))
    return document, validate(WebConfig, document, file.parent)


def _build(parsed: tuple[Document, WebConfig]) -> Settings:
    document, config = parsed
    tls = config.tls_server_config
    if tls is None:
        return Settings(config)
    try:
        context, authorities = build_context(tls)
    except TlsError as error:
        path = ("tls_server_config", error.key) if error.key else ("tls_server_config",)
        raise ConfigError((document.problem(path, str(error)),)) from None
    sans = None if tls.client_allowed_sans is None else frozenset(tls.client_allowed_sans)
    return Settings(config, context, ClientTrust(tls.client_auth_type, authorities, sans))


class WebConfigFile:
    """A web configuration file that is watched. A call returns the current settings."""

    def __init__(
        self, file: Path, *, every: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the file; ConfigError where it cannot be used.

        `every`: least seconds between two checks of the files. `clock`: in seconds.
        """
        self._file = file
        self._every = every
        self._clock = clock
        self._looked = clock()
        # Stamps are taken before files are read, so a change in between is noticed later.
        self._stamp = _stamp(file)
        parsed = _parse(file)
        self._stamps = _stamps(parsed[1].tls_server_config)
        self._settings = _build(parsed)

    def __call__(self) -> Settings:
        """The current settings."""
        now = self._clock()
        if now - self._looked >= self._every:
            self._looked = now
            self._look()
        return self._settings

    def _look(self) -> None:
        stamp = _stamp(self._file)
        if stamp == self._stamp and all(_stamp(f) == seen for f, seen in self._stamps.items()):
            return
        try:
            self.read_again()
        except ConfigError as error:
            for problem in error.problems:
                log.error(
                    "web configuration cannot be used: what was in force before stays so",
                    extra={"problem": problem},
                )

    def read_again(self) -> None:
        """Read all files again, also those that seem not to have changed.

        ConfigError: they cannot be used, and nothing changes.
        """
        self._stamp = _stamp(self._file)
        # If the file is unreadable now, the other files stay those of before.
        self._stamps = {file: _stamp(file) for file in self._stamps}
        parsed = _parse(self._file, before=self._settings)
        self._stamps = _stamps(parsed[1].tls_server_config)
        self._settings = self._as_listening(_build(parsed))
        log.info("web configuration read again", extra={"file": self._file})

    def _as_listening(self, settings: Settings) -> Settings:
        """`settings`, but with the previous TLS if a change switches TLS on or off."""
        before = self._settings
        if (settings.context is None) == (before.context is None):
            return settings
        log.warning(
            "TLS is switched %s by a restart only: all else is in force",
            "off" if settings.context is None else "on",
            extra={"file": self._file},
        )
        tls = before.config.tls_server_config
        config = settings.config.model_copy(update={"tls_server_config": tls})
        return Settings(config, before.context, before.client_trust)


def _stamps(tls: TlsServerConfig | None) -> dict[Path, _Stamp]:
    paths = [getattr(tls, name) for name in _FILES] if tls is not None else []
    return {path: _stamp(path) for path in paths if path is not None}


def _stamp(file: Path) -> _Stamp:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
