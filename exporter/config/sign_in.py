"""How the exporter signs in to an account: the key `auth`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from exporter.config.fields import Model

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
    """How the exporter proves to the account who it is."""

    method: AuthMethod = Field(
        default="default",
        description="`default` tries what azure-identity's DefaultAzureCredential tries;"
        " the others use exactly what their name says. `shared_key` is the account's own key.",
    )
    tenant_id: str | None = Field(default=None, description="Microsoft Entra tenant.")
    client_id: str | None = Field(
        default=None, description="Application, or user-assigned managed identity."
    )
    client_secret_file: Path | None = Field(
        default=None, strict=False, description="File with the client secret."
    )
    client_secret_env: str | None = Field(
        default=None, description="Environment variable with the client secret."
    )
    certificate_file: Path | None = Field(
        default=None, strict=False, description="PEM or PFX file with certificate and private key."
    )
    key_file: Path | None = Field(
        default=None, strict=False, description="File with the account key (base64)."
    )
    key_env: str | None = Field(
        default=None, description="Environment variable with the account key (base64)."
    )
    scope: str = Field(
        default="https://batch.core.windows.net//.default",
        pattern=r"^[a-z]+://.+/\.default$",
        examples=["https://batch.core.windows.net//.default"],
        description="Scope of the token. The double slash belongs there. Sovereign clouds have"
        " their own, for example `https://batch.chinacloudapi.cn//.default`.",
    )

    @model_validator(mode="after")
    def _fields_fit_the_method(self) -> Auth:
        required, optional = _AUTH_FIELDS[self.method]
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        given -= {"method", "scope"}
        problems = []
        for choice in required:
            count = len(given & set(choice))
            if count == 0:
                problems.append(f"method {self.method} needs {' or '.join(choice)}")
            elif count > 1:
                problems.append(f"give only one of {', '.join(choice)}")
        known = {name for choice in required for name in choice} | set(optional)
        if unused := sorted(given - known):
            problems.append(f"method {self.method} does not use {', '.join(unused)}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


# Of each method: groups of fields of which exactly one is needed, and fields that may be given.
_AUTH_FIELDS: Mapping[str, tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
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
