"""How the exporter signs in to an account: the key `auth`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from exporter.config.fields import FilePath, Model

AuthMethod = Literal[
    "default",
    "managed_identity",
    "workload_identity",
    "client_secret",
    "client_certificate",
    "azure_cli",
    "shared_key",
]


class Auth(Model):
    """How the exporter signs in to the account."""

    method: AuthMethod = "default"
    """`default` tries what azure-identity's DefaultAzureCredential tries; the others use exactly
    what their name says. `shared_key` is the account's own key."""
    tenant_id: str | None = None
    """Microsoft Entra tenant."""
    client_id: str | None = None
    """Application, or user-assigned managed identity."""
    client_secret_file: FilePath | None = None
    """File with the client secret."""
    client_secret_env: str | None = None
    """Environment variable with the client secret."""
    certificate_file: FilePath | None = None
    """PEM or PFX file with certificate and private key."""
    key_file: FilePath | None = None
    """File with the account key (base64)."""
    key_env: str | None = None
    """Environment variable with the account key (base64)."""
    scope: str = Field(
        default="https://batch.core.windows.net//.default",
        pattern=r"^[a-z]+://.+/\.default$",
        examples=["https://batch.core.windows.net//.default"],
    )
    """Scope of the token. The double slash belongs there. Sovereign clouds have their own, for
    example `https://batch.chinacloudapi.cn//.default`."""

    @property
    def secret_key(self) -> str:
        """The key that says where the secret is, or ""."""
        given = (name for name, value in self if value is not None)
        return next((name for name in given if name.endswith(("_file", "_env"))), "")

    @model_validator(mode="after")
    def _keys_fit_the_method(self) -> Auth:
        required, optional = _KEYS[self.method]
        given = {name for name, value in self if value is not None} - {"method", "scope"}
        problems = []
        for choice in required:
            count = len(given.intersection(choice))
            if count == 0:
                problems.append(f"method {self.method} needs {' or '.join(choice)}")
            elif count > 1:
                problems.append(f"give only one of {', '.join(choice)}")
        if unused := sorted(given.difference(optional, *required)):
            problems.append(f"method {self.method} does not use {', '.join(unused)}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


# For each method: groups of keys of which it needs exactly one, and the keys that it may have.
_KEYS: Mapping[str, tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    "default": ((), ("tenant_id", "client_id")),
    "managed_identity": ((), ("client_id",)),
    "workload_identity": ((), ("tenant_id", "client_id")),
    "client_secret": (
        (("tenant_id",), ("client_id",), ("client_secret_file", "client_secret_env")),
        (),
    ),
    "client_certificate": ((("tenant_id",), ("client_id",), ("certificate_file",)), ()),
    "azure_cli": ((), ("tenant_id",)),
    "shared_key": ((("key_file", "key_env"),), ()),
}
