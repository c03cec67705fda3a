"""Why no token was issued, and what to do about it: one table, by the code of the failure.

Codes that begin with AADSTS are those of Microsoft Entra ID: learn.microsoft.com, "Microsoft Entra
authentication and authorization error codes". The others are those of
`exporter.batch.credential_errors`.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.batch.errors import CredentialError


@dataclass(frozen=True)
class Cause:
    """A row of the table. `cause`: the fixed word. `what`, `cure`: phrases without a full stop."""

    codes: tuple[str, ...]
    cause: str
    what: str
    cure: str


CAUSES: tuple[Cause, ...] = (
    Cause(
        ("AADSTS7000215",),
        "client_secret",
        "the client secret is wrong",
        "give the secret's value: its id, shown beside it, is something else",
    ),
    Cause(
        ("AADSTS7000222",),
        "client_secret",
        "the client secret has expired",
        "make a new secret for the application and write it where the old one is",
    ),
    Cause(
        ("certificate_expired",),
        "certificate",
        "the client certificate has expired, or is not valid yet",
        "make a new certificate, upload it to the application, and put it in certificate_file",
    ),
    Cause(
        ("AADSTS700027",),
        "certificate",
        "the application does not know the client certificate",
        "upload the certificate to the application, or put in certificate_file the one that is"
        " there: compare the thumbprints",
    ),
    Cause(
        ("AADSTS700016", "AADSTS7000112"),
        "client_id",
        "the tenant has no such application, or it is disabled",
        "set client_id to the application (client) id of an application of that tenant that is not"
        " disabled, and tenant_id to that tenant",
    ),
    Cause(
        ("AADSTS90002", "AADSTS900021", "AADSTS900023", "AADSTS90013"),
        "tenant",
        "there is no such tenant in this cloud",
        "set tenant_id to the directory in which the application is, and see that"
        " AZURE_AUTHORITY_HOST is of the tenant's cloud",
    ),
    Cause(
        ("AADSTS7000229",),
        "service_principal",
        "the application has no service principal in this tenant",
        "run az ad sp create --id CLIENT_ID in the tenant, or set tenant_id to the application's"
        " own",
    ),
    Cause(
        ("AADSTS50034",),
        "user",
        "the tenant does not have this user",
        "run az login again, with a user of the tenant; see tenant_id",
    ),
    Cause(
        ("AADSTS700024",),
        "clock",
        "the assertion is not valid at this time: a clock is wrong, or the token file is stale",
        "set this machine's clock right, with NTP; with a workload identity also see that the file"
        " of AZURE_FEDERATED_TOKEN_FILE is renewed: start the pod again",
    ),
    Cause(
        ("AADSTS70021",),
        "federation",
        "no federated credential of the application matches the token file",
        "add a federated credential with issuer, subject and audience of the pod's service"
        " account; a new one takes some minutes",
    ),
    Cause(
        ("AADSTS700211",),
        "federation",
        "the issuer of the token file is not that of the federated credential",
        "set the federated credential's issuer to the cluster's OIDC issuer URL, its last slash"
        " included",
    ),
    Cause(
        ("AADSTS700212",),
        "federation",
        "the audience of the token file is not that of the federated credential",
        "set the federated credential's audience to api://AzureADTokenExchange",
    ),
    Cause(
        ("AADSTS700213",),
        "federation",
        "the subject of the token file is not that of the federated credential",
        "set the federated credential's subject to system:serviceaccount:NAMESPACE:NAME of the"
        " pod's service account",
    ),
    Cause(
        ("AADSTS53003", "AADSTS53000", "AADSTS53001", "AADSTS53011", "AADSTS530003"),
        "conditional_access",
        "a conditional access policy forbids it",
        "ask the administrators of Microsoft Entra ID to let this identity sign in from here: the"
        " sign-in log names the policy",
    ),
    Cause(
        ("AADSTS530034",),
        "blocked",
        "the tenant or the identity is blocked for security reasons",
        "ask the administrators of Microsoft Entra ID: only they can lift it",
    ),
    Cause(
        ("AADSTS500011", "AADSTS70011", "AADSTS1002012", "AADSTS500014"),
        "scope",
        "the tenant does not know the scope",
        "leave auth.scope out, or set the one of the account's cloud; the double slash of"
        " https://batch.core.windows.net//.default belongs there",
    ),
    Cause(
        ("AADSTS50196", "AADSTS90055"),
        "authority_throttled",
        "Microsoft Entra ID asks for fewer requests, or is busy",
        "usually transient. If it lasts, see what else signs in with this identity",
    ),
    Cause(
        ("authority_dns",),
        "authority_dns",
        "the name of the authority has no address here",
        "see that this machine resolves login.microsoftonline.com, or the host in"
        " AZURE_AUTHORITY_HOST",
    ),
    Cause(
        ("authority_tls",),
        "authority_tls",
        "there is no TLS with the authority, or its certificate is not trusted",
        "where a proxy opens TLS, name its certificate authority's file in SSL_CERT_FILE; see that"
        " AZURE_AUTHORITY_HOST is right",
    ),
    Cause(
        ("authority_connection",),
        "authority_connection",
        "nothing answers at the authority",
        "let this machine reach login.microsoftonline.com, or the host in AZURE_AUTHORITY_HOST,"
        " on port 443: see firewall and HTTPS_PROXY",
    ),
    Cause(
        ("authority_proxy",),
        "authority_proxy",
        "the proxy does not let the request through",
        "see that HTTPS_PROXY is right, and that the proxy allows login.microsoftonline.com; else"
        " name the host in NO_PROXY",
    ),
    Cause(
        ("authority_timeout",),
        "authority_timeout",
        "the authority did not answer in time",
        "usually transient. If it lasts, see whether a firewall swallows requests to"
        " login.microsoftonline.com",
    ),
    Cause(
        ("authority_throttled",),
        "authority_throttled",
        "the authority asks for fewer requests",
        "usually transient. If it lasts, see what else signs in with this identity",
    ),
    Cause(
        ("authority_unavailable", "AADSTS90033"),
        "authority_unavailable",
        "the authority answers with an error of its own",
        "usually transient. If it lasts, check Azure Service Health",
    ),
    Cause(
        ("authority_invalid",),
        "authority_invalid",
        "something answers that is no Microsoft Entra ID",
        "see what answers at login.microsoftonline.com, or at the host in AZURE_AUTHORITY_HOST: a"
        " proxy's page, for example",
    ),
    Cause(
        ("identity_not_assigned",),
        "identity_not_assigned",
        "this machine does not have the managed identity",
        "assign a managed identity to this machine; where it is a user-assigned one, set client_id"
        " to its client id",
    ),
    Cause(
        ("identity_not_found",),
        "identity_endpoint",
        "the managed identity endpoint does not know the request, or is being updated",
        "usually transient. If it lasts, see that this machine runs in Azure, and what answers at"
        " 169.254.169.254 or IDENTITY_ENDPOINT",
    ),
    Cause(
        ("identity_refused",),
        "identity_endpoint",
        "the managed identity endpoint refuses the request",
        "see that IDENTITY_HEADER is the one that the platform gave this process; on AKS let the"
        " pod reach 169.254.169.254, or use workload_identity",
    ),
    Cause(
        ("identity_throttled",),
        "identity_throttled",
        "the managed identity endpoint asks for fewer requests",
        "usually transient. If it lasts, see what else on this machine asks for tokens",
    ),
    Cause(
        ("identity_unavailable", "identity_timeout"),
        "identity_unavailable",
        "the managed identity endpoint answers with an error of its own, or not in time",
        "usually transient. If it lasts, check this machine's health in Azure",
    ),
    Cause(
        ("identity_unreachable",),
        "identity_unreachable",
        "this machine has no managed identity endpoint",
        "run the exporter in Azure, or use another auth.method; let it reach 169.254.169.254"
        " where it runs in Azure",
    ),
    Cause(
        ("identity_invalid",),
        "identity_endpoint",
        "something answers that is no managed identity endpoint",
        "see what answers at 169.254.169.254 or IDENTITY_ENDPOINT",
    ),
    Cause(
        ("az_not_found",),
        "azure_cli",
        "the Azure CLI is not installed, or is not on PATH",
        "install the Azure CLI, or use another auth.method: the image does not have it",
    ),
    Cause(
        ("az_not_logged_in",),
        "azure_cli",
        "nobody is signed in to the Azure CLI",
        "run az login as the user that runs the exporter",
    ),
    Cause(
        ("az_timeout",),
        "azure_cli",
        "the Azure CLI did not answer in time",
        "see how long az account get-access-token takes, and why: its network, or a busy machine",
    ),
    Cause(
        ("az_failed",),
        "azure_cli",
        "the Azure CLI failed",
        "run az account get-access-token as the user that runs the exporter, and see what it says",
    ),
    Cause(
        ("default_none",),
        "credential",
        "this machine has no identity that auth.method: default knows",
        "set auth.method to the way that is meant; the text says what was tried",
    ),
    Cause(
        ("default_timeout",),
        "credential",
        "none of the ways that auth.method: default tries gave a token in time",
        "set auth.method to the way that is meant",
    ),
    Cause(
        ("not_set",),
        "environment",
        "the environment lacks variables that the method needs",
        "on AKS, label the pod azure.workload.identity/use: true and annotate its service account"
        " with azure.workload.identity/client-id; else use another auth.method",
    ),
    Cause(
        ("file",),
        "file",
        "a file with a secret or token cannot be read",
        "see that the file is there and the exporter's user may read it; it is read again soon",
    ),
    Cause(
        ("secret_invalid",),
        "file",
        "what stands in the file cannot be the secret, or its password does not open it",
        "put the right secret there, and a certificate together with its password; it is read again"
        " soon",
    ),
)

_BY_CODE = {code: row for row in CAUSES for code in row.codes}

_OTHER = {
    "azure_cli": _BY_CODE["az_not_logged_in"].cure,
    "workload_identity": "see that tenant, client id and the federated credential of the pod's"
    " service account belong together",
    "client_secret": "see that tenant_id, client_id and the secret belong together",
    "client_certificate": "see that tenant_id, client_id and the certificate belong together",
}
"""The cure of a code that the table does not have, by method."""


def explain(method: str, error: CredentialError) -> None:
    """Set cause and cure of a failed sign-in by `auth.method`."""
    row = _BY_CODE.get(error.code)
    if row is not None:
        error.cause, error.cure = row.cause, row.cure
    else:
        error.cause = "credential"
        error.cure = _OTHER.get(
            method, "look the code up at https://login.microsoftonline.com/error"
        )
