"""Flags that several commands have, and the types of their values."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli.parsing import OneOf
from exporter.service import logs

if TYPE_CHECKING:
    from exporter.config.shard import Shard
    from exporter.service.process import Listener

DEFAULT_PORT = 10225

DEFAULT_MAX_REQUESTS = 40
"""The same as that of the listener's Limits, which the help does not import."""

RESERVED_PATHS = ("/-/", "/api/", "/static/", "/job", "/config")
"""Paths that the metrics cannot have, as the exporter has them; with "/" at the end: all below."""

REVISION_VARIABLE = "AZURE_BATCH_EXPORTER_REVISION"
"""Set in the image: the commit that it was built from."""

DOCS_VARIABLE = "AZURE_BATCH_EXPORTER_DOCS_URL"
"""Says where the files of the project can be read: the page links there."""

PROJECT_URL = "https://github.com/azure-batch-exporter/azure-batch-exporter/blob/main"
"""Where they are else."""

ENVIRONMENT = {
    "AZURE_*": "what azure-identity goes by, such as AZURE_TENANT_ID and AZURE_CLIENT_ID",
    "HTTPS_PROXY, NO_PROXY": "the proxy to the service",
    "SSL_CERT_FILE": "authorities that are trusted, for a proxy that opens TLS",
}
"""What whoever asks an account goes by."""

CONFIG_FILES = {
    "config.yaml": "the configuration: docs/configuration.md, config.example.yaml",
}


def add_config(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """--config.file."""
    parser.add_argument(
        "--config.file",
        dest="config_file",
        type=Path,
        required=required,
        metavar="F",
        help="configuration file (YAML)",
    )


def add_shard(parser: argparse.ArgumentParser) -> None:
    """--shard."""
    parser.add_argument(
        "--shard",
        type=_shard,
        default="0/1",
        metavar="I/N",
        help="poll only the jobs of part I, counted from 0, of N (default: %(default)s, all)",
    )


def add_log_flags(parser: argparse.ArgumentParser) -> None:
    """--log.level and --log.format."""
    parser.add_argument(
        "--log.level",
        dest="log_level",
        type=OneOf(logs.LEVELS),
        default="info",
        metavar="|".join(logs.LEVELS),
        help="what is logged (default: %(default)s)",
    )
    parser.add_argument(
        "--log.format",
        dest="log_format",
        type=OneOf(logs.FORMATS),
        default="logfmt",
        metavar="|".join(logs.FORMATS),
        help="how it is logged, on standard error (default: %(default)s)",
    )


def add_web_flags(parser: argparse.ArgumentParser) -> None:
    """--web.*, as Prometheus' own programs have them."""
    parser.add_argument(
        "--web.listen-address",
        dest="listen_addresses",
        type=parse_address,
        action="append",
        metavar="ADDRESS",
        help=f"host:port, [::1]:port or :port to serve on; repeatable (default: :{DEFAULT_PORT})",
    )
    parser.add_argument(
        "--web.telemetry-path",
        dest="telemetry_path",
        type=parse_telemetry_path,
        default="/metrics",
        metavar="PATH",
        help="path of the metrics (default: %(default)s)",
    )
    parser.add_argument(
        "--web.enable-lifecycle",
        dest="enable_lifecycle",
        action="store_true",
        help="let POST /-/reload reload the configuration, as SIGHUP does",
    )
    parser.add_argument(
        "--web.config.file",
        dest="web_config_file",
        type=Path,
        metavar="F",
        help="web configuration file (YAML): TLS, basic auth, headers",
    )
    parser.add_argument(
        "--web.max-requests",
        dest="max_requests",
        type=_count,
        default=DEFAULT_MAX_REQUESTS,
        metavar="N",
        help="requests answered at once, past which they get 503; 0: no limit"
        " (default: %(default)s)",
    )


def listener(options: argparse.Namespace) -> Listener:
    """What --web.* say."""
    from exporter.service.process import Listener
    from exporter.web.server.limits import Limits
    from exporter.web.server.web_config_file import Settings, WebConfigFile

    addresses = tuple(options.listen_addresses or [(None, DEFAULT_PORT)])
    file = options.web_config_file
    return Listener(
        addresses,
        options.telemetry_path,
        WebConfigFile(file) if file is not None else Settings,
        Limits(max_requests=options.max_requests),
        enable_lifecycle=options.enable_lifecycle,
        docs_url=_docs_url(),
    )


def revision() -> str:
    """The commit that this was built from, or ""."""
    return os.environ.get(REVISION_VARIABLE, "")


def _docs_url() -> str:
    url = os.environ.get(DOCS_VARIABLE, PROJECT_URL)
    if url and not url.startswith(("https://", "http://")):
        from exporter.config.problems import ConfigError

        raise ConfigError((f"{DOCS_VARIABLE}: {url!r} is not a URL: write https://…",))
    return url


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text}: write a whole number, 1 or more")
    return int(text)


def parse_address(text: str) -> tuple[str | None, int]:
    """(host, port) of `host:port`, `[::1]:port` or `:port`; host None: all interfaces."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise argparse.ArgumentTypeError(f"{text}: write an IPv6 address in brackets, [::1]:port")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text}: write host:port, [::1]:port or :port")
    return host or None, int(port)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: write a whole number, 0 or more")
    return int(text)


def _shard(text: str) -> Shard:
    from exporter.config.shard import Shard

    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_telemetry_path(text: str) -> str:
    """A path that the metrics can have."""
    is_taken = any(
        text.startswith(path) if path.endswith("/") else text == path for path in RESERVED_PATHS
    )
    if not text.startswith("/") or is_taken:
        raise argparse.ArgumentTypeError("must start with / and not be a path of the exporter")
    return text
