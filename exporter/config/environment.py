"""What azure-identity reads from the environment to sign in, and what is wrong with it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from exporter.config import client_certificate, files
from exporter.config.problems import did_you_mean
from exporter.config.sign_in import TENANT_PATTERN, Auth

ASKS_THE_AUTHORITY = frozenset(
    {"default", "workload_identity", "client_secret", "client_certificate"}
)
"""The methods that ask an authority for a token themselves."""

TOKEN_CREDENTIALS = (
    "dev",
    "prod",
    "EnvironmentCredential",
    "WorkloadIdentityCredential",
    "ManagedIdentityCredential",
    "AzureCliCredential",
)
"""The values of AZURE_TOKEN_CREDENTIALS that are used, in any case. azure-identity has more: those
of developers' tools that a service has no use for."""

_ON_AKS = (
    "on AKS, label the pod azure.workload.identity/use=true, annotate its service account with"
    " azure.workload.identity/client-id, and start the pod again"
)


def authority_host(environ: Mapping[str, str]) -> str | None:
    """AZURE_AUTHORITY_HOST, or None where it is not set or empty."""
    return environ.get("AZURE_AUTHORITY_HOST", "").strip().rstrip("/") or None


def is_workload_identity_pod(environ: Mapping[str, str]) -> bool:
    """Whether a managed identity is the workload identity of this pod, for azure-identity."""
    others = ("IDENTITY_ENDPOINT", "MSI_ENDPOINT")
    of_pod = ("AZURE_AUTHORITY_HOST", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE")
    return all(map(environ.get, of_pod)) and not any(map(environ.get, others))


def environment_problems(auth: Auth, environ: Mapping[str, str]) -> list[str]:
    """What keeps `auth` from a token until the environment changes, each with a cure.

    Reads no network. A federated token that is not there yet is no such problem: it may come.
    """
    problems = []
    authority = authority_host(environ)
    if auth.method in ASKS_THE_AUTHORITY and authority is not None:
        problems += _of_authority(authority)
    if auth.method == "workload_identity":
        problems += _of_workload_identity(auth, environ)
    elif auth.method == "managed_identity":
        problems += _of_managed_identity(auth, environ)
    elif auth.method == "default":
        problems += _of_default(environ)
    return problems


def environment_warnings(methods: Collection[str], environ: Mapping[str, str]) -> list[str]:
    """What may keep this machine from Azure, each with a cure; files may come later.

    `methods`: those of all accounts.
    """
    found = []
    for name, lacking, holds in (
        ("SSL_CERT_FILE", "no certificate is trusted", b"CERTIFICATE-----"),
        ("AZURE_FEDERATED_TOKEN_FILE", "there are no tokens", b""),
    ):
        is_of_pods = name == "AZURE_FEDERATED_TOKEN_FILE"
        if (is_of_pods and "workload_identity" not in methods) or not (file := environ.get(name)):
            continue
        try:
            wrong = "" if holds in files.read(Path(file)) else "holds no certificate in PEM"
        except OSError as error:
            wrong = f"cannot be read: {error.strerror}"
        if wrong:
            text = f"{name}: {file} {wrong}; without it {lacking}: put the file there"
            found.append(text if is_of_pods else f"{text}, or unset {name}")
    return found


def _of_authority(authority: str) -> list[str]:
    if authority.startswith("http://"):
        return [f"AZURE_AUTHORITY_HOST is {authority!r}: it must be https"]
    if re.fullmatch(r"(https://[A-Za-z0-9._-]+(:[0-9]{1,5})?)|[A-Za-z0-9._-]+", authority):
        return []
    return [
        f"AZURE_AUTHORITY_HOST is {authority!r}: write the host alone, for example"
        " login.microsoftonline.com, or https:// and the host, with its port if it has one"
    ]


def _of_tenant(environ: Mapping[str, str]) -> list[str]:
    tenant = environ.get("AZURE_TENANT_ID", "")
    if not tenant or re.fullmatch(TENANT_PATTERN, tenant):
        return []
    return [f"AZURE_TENANT_ID is {tenant!r}: write the tenant's id or its domain, and no more"]


def _of_workload_identity(auth: Auth, environ: Mapping[str, str]) -> list[str]:
    keys = {"AZURE_TENANT_ID": auth.tenant_id, "AZURE_CLIENT_ID": auth.client_id}
    lacking = [name for name, given in keys.items() if not given and not environ.get(name)]
    settable = [name.removeprefix("AZURE_").lower() for name in lacking]
    if not environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        lacking.append("AZURE_FEDERATED_TOKEN_FILE")
    problems = [] if auth.tenant_id else _of_tenant(environ)
    if lacking:
        cure = f"; or set {_listed(settable)} here" if len(settable) == len(lacking) else ""
        cure = cure or (f"; {_listed(settable)} may be set here instead" if settable else "")
        what = f"the environment lacks {_listed(lacking)}"
        problems.append(f"method workload_identity: {what}: {_ON_AKS}{cure}")
    return problems


def _of_managed_identity(auth: Auth, environ: Mapping[str, str]) -> list[str]:
    problems = [
        f"{name} is {environ[name]!r}: write http:// and the host, or leave it to Azure"
        for name in ("IDENTITY_ENDPOINT", "MSI_ENDPOINT", "AZURE_POD_IDENTITY_AUTHORITY_HOST")
        if not re.match(r"https?://[^/]|\Z", environ.get(name, ""))
    ]
    # Azure Arc has IMDS_ENDPOINT in place of the header.
    if environ.get("IDENTITY_ENDPOINT") and not any(
        map(environ.get, ("IDENTITY_HEADER", "IMDS_ENDPOINT"))
    ):
        text = "IDENTITY_ENDPOINT is set without IDENTITY_HEADER: set both as Azure did, or none"
        problems.append(text)
    return problems + _of_pod(auth, environ)


def _of_pod(auth: Auth, environ: Mapping[str, str]) -> list[str]:
    if not is_workload_identity_pod(environ) or auth.client_id or environ.get("AZURE_CLIENT_ID"):
        return []
    return [
        "method managed_identity uses the workload identity of this pod, and the environment"
        " lacks AZURE_CLIENT_ID: set client_id"
    ]


def _of_default(environ: Mapping[str, str]) -> list[str]:
    """Nothing is required: this machine may have a managed identity."""
    chosen = environ.get("AZURE_TOKEN_CREDENTIALS", "").strip()
    if chosen and chosen.lower() not in map(str.lower, TOKEN_CREDENTIALS):
        cure = did_you_mean(chosen, TOKEN_CREDENTIALS) or (
            f": write one of {', '.join(TOKEN_CREDENTIALS)}, or unset it"
        )
        return [f"AZURE_TOKEN_CREDENTIALS is {chosen!r}, which is no such name{cure}"]
    if chosen.lower() not in ("", "prod", "environmentcredential"):
        return []
    secrets = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH")
    ids = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID")
    if any(name not in environ for name in ids) or not any(map(environ.get, secrets)):
        return []
    # azure-identity takes the first that is set, even if it is empty.
    used = next(name for name in secrets if name in environ)
    needed = (*ids, used)
    problems = [f"{name} is empty: set it, or unset it" for name in needed if not environ[name]]
    problems += _of_tenant(environ)
    if used == "AZURE_CLIENT_SECRET":
        return problems
    file = environ[used]
    password = os.fsencode(environ.get("AZURE_CLIENT_CERTIFICATE_PASSWORD", ""))
    try:
        client_certificate.parse(
            files.read(Path(file)), password, file, "AZURE_CLIENT_CERTIFICATE_PASSWORD"
        )
    except OSError as error:
        problems.append(f"AZURE_CLIENT_CERTIFICATE_PATH: {file} cannot be read: {error.strerror}")
    except ValueError as error:
        problems.append(f"AZURE_CLIENT_CERTIFICATE_PATH: {error}")
    return problems


def _listed(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
