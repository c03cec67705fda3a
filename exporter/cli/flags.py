"""Flags that several commands have, the types of their values, and their part of the help."""

from __future__ import annotations

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.service import logs

if TYPE_CHECKING:
    from exporter.config.shard import Shard
    from exporter.service.process import Listener
    from exporter.web.server.listener import Address

DEFAULT_PORT = 10225

DEFAULT_MAX_REQUESTS = 40
"""The same as that of the listener's Limits, which the help does not import."""

RESERVED_PATHS = ("/-/", "/api/", "/static/", "/job", "/config")
"""Paths of the exporter, which the metrics cannot have; with "/" at the end: all below."""

DOCS_VARIABLE = "AZURE_BATCH_EXPORTER_DOCS_URL"
"""Where the files of the project can be read: the page links there."""

PROJECT_URL = "https://github.com/azure-batch-exporter/azure-batch-exporter/blob/main"
"""The default of DOCS_VARIABLE."""

ENVIRONMENT = """\
environment:
  AZURE_*                what azure-identity reads, such as AZURE_TENANT_ID and
                         AZURE_CLIENT_ID
  HTTPS_PROXY, NO_PROXY  the proxy to the service
  SSL_CERT_FILE          trusted authorities, for a proxy that opens TLS"""

EXIT_STATUS = """\
exit status:
  0  success
  1  something failed at run time
  2  usage or configuration"""


def add_config(parser: ArgumentParser, *, required: bool) -> None:
    """--config.file."""
    help_ = "configuration file (YAML): docs/configuration.md, config.example.yaml"
    parser.add_argument("--config.file", help=help_, type=Path, required=required, metavar="F")


def add_shard(parser: ArgumentParser) -> None:
    """--shard."""
    help_ = "poll only the jobs of part I, counted from 0, of N (default: %(default)s)"
    parser.add_argument("--shard", help=help_, type=_shard, default="0/1", metavar="I/N")


def add_log_flags(parser: ArgumentParser) -> None:
    """--log.level and --log.format."""
    help_ = "what is logged (default: %(default)s)"
    parser.add_argument("--log.level", help=help_, choices=logs.LEVELS, default="info")
    help_ = "how it is logged, on standard error (default: %(default)s)"
    parser.add_argument("--log.format", help=help_, choices=logs.FORMATS, default="logfmt")


def add_web_flags(parser: ArgumentParser) -> None:
    """--web.*, as Prometheus' own programs have them."""
    parser.add_argument(
        "--web.listen-address",
        help="host:port, [::1]:port, :port or unix:/path to serve on; repeatable"
        f" (default: :{DEFAULT_PORT})",
        type=parse_web_address,
        action="append",
        metavar="ADDRESS",
    )
    parser.add_argument(
        "--web.systemd-socket",
        help="serve on the sockets that systemd has opened (socket activation)",
        action="store_true",
    )
    parser.add_argument(
        "--web.telemetry-path",
        help="path of the metrics (default: %(default)s)",
        type=parse_telemetry_path,
        default="/metrics",
        metavar="PATH",
    )
    parser.add_argument(
        "--web.enable-lifecycle",
        help="let POST /-/reload reload the configuration, as SIGHUP does, and POST"
        " /-/forget-group forget a group",
        action="store_true",
    )
    parser.add_argument(
        "--web.config.file",
        help="web configuration file (YAML): TLS, basic auth, headers: docs/web-config.md",
        type=Path,
        metavar="F",
    )
    parser.add_argument(
        "--web.allowed-host",
        help="host name by which clients may ask, addresses and localhost aside; repeatable"
        " (default: all names)",
        action="append",
        default=[],
        metavar="NAME",
    )
    parser.add_argument(
        "--web.max-requests",
        help="requests answered at once, past which they get 503; 0: no limit"
        " (default: %(default)s)",
        type=whole_number(0),
        default=DEFAULT_MAX_REQUESTS,
        metavar="N",
    )


def listener(options: Namespace) -> Listener:
    """The listener that the --web.* flags describe."""
    from exporter.service.process import Listener
    from exporter.web.server.limits import Limits
    from exporter.web.server.web_config_file import Settings, WebConfigFile

    file = options.web_config_file
    web = WebConfigFile(file) if file is not None else None
    return Listener(
        addresses=_addresses(options),
        telemetry_path=options.web_telemetry_path,
        settings=web or Settings,
        read_settings_again=web.read_again if web is not None else lambda: None,
        limits=Limits(max_requests=options.web_max_requests),
        enable_lifecycle=options.web_enable_lifecycle,
        allowed_hosts=tuple(options.web_allowed_host),
        docs_url=_docs_url(),
    )


def _addresses(options: Namespace) -> tuple[Address, ...]:
    if not options.web_systemd_socket:
        return tuple(options.web_listen_address or [(None, DEFAULT_PORT)])
    from exporter.config.problems import ConfigError
    from exporter.service import systemd

    if options.web_listen_address:
        raise ConfigError(("give only one of --web.systemd-socket and --web.listen-address",))
    return systemd.sockets()


def _docs_url() -> str:
    url = os.environ.get(DOCS_VARIABLE, PROJECT_URL)
    if url and not url.startswith(("https://", "http://")):
        from exporter.config.problems import ConfigError
        from exporter.config.redaction import redact

        raise ConfigError((f"{DOCS_VARIABLE}: {redact(url)!r} is not a URL: write https://…",))
    return url


def parse_web_address(text: str) -> Address:
    """As parse_address; the path of `unix:/path`."""
    scheme, colon, path = text.partition(":")
    if scheme != "unix" or not colon or path.isdecimal():  # a host may be named unix
        return parse_address(text)
    if not path:
        raise ArgumentTypeError(f"{text}: write the path of a socket, unix:/path")
    return Path(path)


def parse_address(text: str) -> tuple[str | None, int]:
    """(host, port) of `host:port`, `[::1]:port` or `:port`; host None: all interfaces."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ArgumentTypeError(f"{text}: write an IPv6 address in brackets, [::1]:port")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ArgumentTypeError(f"{text}: write host:port, [::1]:port or :port")
    return host or None, int(port)


def parse_telemetry_path(text: str) -> str:
    """A path that the metrics can have."""
    is_taken = any(
        text.startswith(path) if path.endswith("/") else text == path for path in RESERVED_PATHS
    )
    if not text.startswith("/") or is_taken:
        raise ArgumentTypeError("must start with / and not be a path of the exporter")
    return text


def _shard(text: str) -> Shard:
    from exporter.config.shard import Shard

    try:
        return Shard.parse(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def whole_number(least: int) -> Callable[[str], int]:
    """The type of a flag that has a whole number, `least` or more."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ArgumentTypeError(f"{text}: write a whole number, {least} or more")
        return int(text)

    return parse
