"""How the exporter signs in to an account: the key `auth`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from exporter.config.clouds import PUBLIC
from exporter.config.fields import FilePath, Model, VariableName

AuthMethod = Literal[
    "default",
    "managed_identity",
    "workload_identity",
    "client_secret",
    "client_certificate",
    "azure_cli",
    "shared_key",
]


TENANT_PATTERN = r"^[A-Za-z0-9.-]+$"
"""A tenant's id or one of its domains; azure-identity takes no other characters."""

_ID = "00000000-0000-0000-0000-000000000000"


class Auth(Model):
    """How the exporter signs in to the account."""

    method: AuthMethod = "default"
    """`default` tries what azure-identity's DefaultAzureCredential tries; the others use exactly
    what their name says. `shared_key` is the account's own key."""
    tenant_id: str | None = Field(default=None, pattern=TENANT_PATTERN, examples=[_ID])
    """Microsoft Entra tenant: its id, or one of its domains."""
    client_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]+$", examples=[_ID])
    """Client id of the application, or of the user-assigned managed identity."""
    client_secret_file: FilePath | None = None
    """File with the client secret."""
    client_secret_env: VariableName | None = None
    """Environment variable with the client secret."""
    certificate_file: FilePath | None = None
    """PEM or PFX file with certificate and RSA private key."""
    certificate_password_file: FilePath | None = None
    """File with the password of an encrypted certificate file."""
    certificate_password_env: VariableName | None = None
    """Environment variable with the password of an encrypted certificate file."""
    key_file: FilePath | None = None
    """File with the account key (base64)."""
    key_env: VariableName | None = None
    """Environment variable with the account key (base64)."""
    scope: str | None = Field(
        default=None, pattern=r"^[a-z]+://.+/\.default$", examples=[PUBLIC.scope]
    )
    """Scope of the token. Default: that of the endpoint's cloud, for the public one
    `https://batch.core.windows.net//.default`. The double slash belongs there."""

    @property
    def secret_keys(self) -> tuple[str, ...]:
        """The keys that say where secrets are: the secret's first, then that of its password."""
        return tuple(
            name for name, value in self if value is not None and name.endswith(("_file", "_env"))
        )

    @model_validator(mode="after")
    def _keys_fit_the_method(self) -> Auth:
        required, optional = _KEYS[self.method]
        given = {name for name, value in self if value is not None} - {"method", "scope"}
        problems = []
        for choice in (*required, *optional):
            count = len(given.intersection(choice))
            if count == 0 and choice in required:
                problems.append(f"method {self.method} needs {' or '.join(choice)}")
            elif count > 1:
                problems.append(f"give only one of {', '.join(choice)}")
        if unused := sorted(given.difference(*required, *optional)):
            problems.append(f"method {self.method} does not use {', '.join(unused)}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


_Choices = tuple[tuple[str, ...], ...]

# For each method: groups of keys of which it needs exactly one, and those of which it may have one.
_KEYS: Mapping[str, tuple[_Choices, _Choices]] = {
    "default": ((), (("tenant_id",), ("client_id",))),
    "managed_identity": ((), (("client_id",),)),
    "workload_identity": ((), (("tenant_id",), ("client_id",))),
    "client_secret": (
        (("tenant_id",), ("client_id",), ("client_secret_file", "client_secret_env")),
        (),
    ),
    "client_certificate": (
        (("tenant_id",), ("client_id",), ("certificate_file",)),
        (("certificate_password_file", "certificate_password_env"),),
    ),
    "azure_cli": ((), (("tenant_id",),)),
    "shared_key": ((("key_file", "key_env"),), ()),
}
