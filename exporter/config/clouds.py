"""The clouds of Azure that have Batch: where their accounts are, and where one signs in to them.

The names are those of the Azure CLI's table of clouds. It has each Batch resource id with a slash
at the end: a scope is that id with `/.default` behind it, hence two slashes.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Cloud:
    """One cloud. `domain`: the end of its endpoints. `authority`: the host that issues tokens."""

    name: str
    domain: str
    authority: str
    scope: str


PUBLIC = Cloud(
    "public",
    ".batch.azure.com",
    "login.microsoftonline.com",
    "https://batch.core.windows.net//.default",
)

CLOUDS = (
    PUBLIC,
    Cloud(
        "China (21Vianet)",
        ".batch.chinacloudapi.cn",
        "login.chinacloudapi.cn",
        "https://batch.chinacloudapi.cn//.default",
    ),
    Cloud(
        "US Government",
        ".batch.usgovcloudapi.net",
        "login.microsoftonline.us",
        "https://batch.core.usgovcloudapi.net//.default",
    ),
)


def cloud_of(endpoint: str) -> Cloud | None:
    """The cloud of an account's endpoint. None: of no known cloud, as a loopback address is."""
    host = urlsplit(endpoint).hostname or ""
    return next((cloud for cloud in CLOUDS if host.endswith(cloud.domain)), None)


def cloud_of_scope(scope: str) -> Cloud | None:
    """The cloud whose Batch service a scope is for."""
    host = _host(scope)
    return next((cloud for cloud in CLOUDS if host == _host(cloud.scope)), None)


def cloud_of_authority(authority: str) -> Cloud | None:
    """The cloud of an authority, which is a host or an https URL."""
    host = _host(authority if "://" in authority else f"//{authority}")
    return next((cloud for cloud in CLOUDS if host == cloud.authority), None)


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
