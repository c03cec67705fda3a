"""What Microsoft Entra ID answers when it refuses to issue a token.

Codes: learn.microsoft.com, "Microsoft Entra authentication and authorization error codes". The
sentences are in brief what the service says; the shape around them is the service's.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple
from uuid import uuid4

from aiohttp import web


class Code(NamedTuple):
    """An error's HTTP status, its OAuth name, and its text with the request's values in braces."""

    status: int
    error: str
    text: str


CODES: Mapping[int, Code] = MappingProxyType(
    {
        50000: Code(500, "server_error", "The sign-in service could not issue the token."),
        50027: Code(401, "invalid_client", "The JWT is invalid or malformed."),
        50034: Code(400, "invalid_grant", "The account does not exist in the {tenant} directory."),
        53003: Code(
            400,
            "invalid_grant",
            "Access has been blocked by Conditional Access policies. The access policy does not "
            "allow token issuance.",
        ),
        70003: Code(
            400, "unsupported_grant_type", "The grant type '{grant}' is not supported here."
        ),
        70011: Code(400, "invalid_scope", "The value of the parameter 'scope' is not valid."),
        70021: Code(
            400,
            "invalid_request",
            "No matching federated identity record found for presented assertion. Assertion "
            "Issuer: '{issuer}'. Assertion Subject: '{subject}'. Assertion Audience: '{audience}'.",
        ),
        90002: Code(
            400,
            "invalid_request",
            "Tenant '{tenant}' not found. Check that the tenant ID is right and that this is the "
            "right cloud.",
        ),
        90033: Code(503, "temporarily_unavailable", "A transient error occurred. Try again."),
        90055: Code(429, "temporarily_unavailable", "There are too many incoming requests."),
        500011: Code(
            400,
            "invalid_resource",
            "The resource principal named {resource} was not found in the tenant named {tenant}.",
        ),
        530034: Code(
            400,
            "invalid_grant",
            "A delegated administrator was blocked from the tenant due to account risk in their "
            "home tenant.",
        ),
        700016: Code(
            400,
            "unauthorized_client",
            "Application with identifier '{client}' was not found in the directory '{tenant}'. "
            "It may not be installed there, or the request went to the wrong tenant.",
        ),
        700021: Code(
            401,
            "invalid_client",
            "Client assertion application identifier doesn't match 'client_id' parameter.",
        ),
        700023: Code(
            401, "invalid_client", "Client assertion audience claim does not match Realm issuer."
        ),
        700024: Code(
            401,
            "invalid_client",
            "Client assertion is not within its valid time range. Current time: {time}, assertion "
            "valid from {begin}, expiry time of assertion {end}.",
        ),
        700027: Code(
            401,
            "invalid_client",
            "The certificate with identifier used to sign the client assertion {reason} "
            "Thumbprint of key used by client: '{thumbprint}'.",
        ),
        700211: Code(
            401,
            "invalid_client",
            "No matching federated identity record found for presented assertion issuer "
            "'{issuer}'.",
        ),
        700212: Code(
            401,
            "invalid_client",
            "No matching federated identity record found for presented assertion audience "
            "'{audience}'.",
        ),
        700213: Code(
            401,
            "invalid_client",
            "No matching federated identity record found for presented assertion subject "
            "'{subject}'.",
        ),
        900144: Code(
            400,
            "invalid_request",
            "The request body must contain the following parameter: '{missing}'.",
        ),
        1002012: Code(
            400,
            "invalid_scope",
            "The provided value for scope {scope} is not valid. Client credential flows must have "
            "a scope with /.default suffixed to the resource identifier.",
        ),
        7000112: Code(400, "unauthorized_client", "Application '{client}' is disabled."),
        7000215: Code(
            401,
            "invalid_client",
            "Invalid client secret provided. Ensure that the secret sent is the secret's value, "
            "not its ID, for a secret added to app '{client}'.",
        ),
        7000216: Code(
            401,
            "invalid_client",
            "'client_assertion', 'client_secret' or 'request' is required for the "
            "'client_credentials' grant type.",
        ),
        7000222: Code(
            401,
            "invalid_client",
            "The provided client secret keys for app '{client}' are expired. Create new keys in "
            "the Azure portal.",
        ),
        7000229: Code(
            401,
            "invalid_client",
            "The client application {client} is missing service principal in the tenant {tenant}.",
        ),
    }
)

NOT_REGISTERED = "is not registered on application. [Reason - The key was not found.]"
WRONG_SIGNATURE = "did not verify its signature. [Reason - The signature does not match the key.]"
EXPIRED = "is expired. [Reason - The key used is expired.]"


class EntraError(Exception):
    """A request for a token that is refused. `values`: more of what the code's text names."""

    def __init__(self, code: int, retry_after: int | None = None, **values: str) -> None:
        super().__init__(code)
        self.code = code
        self.values = values
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


def error_response(
    error: EntraError, values: Mapping[str, str], now: datetime, correlation_id: str
) -> web.Response:
    """The answer to a refused request. `values`: what the request says. `now`: aware."""
    code = CODES[error.code]
    known = defaultdict(str, values) | error.values
    trace_id, timestamp = str(uuid4()), f"{now.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
    correlation_id = correlation_id or str(uuid4())
    body = {
        "error": code.error,
        "error_description": f"AADSTS{error.code}: {code.text.format_map(known)} Trace ID: "
        f"{trace_id} Correlation ID: {correlation_id} Timestamp: {timestamp}",
        "error_codes": [error.code],
        "timestamp": timestamp,
        "trace_id": trace_id,
        "correlation_id": correlation_id,
        "error_uri": f"https://login.microsoftonline.com/error?code={error.code}",
    }
    headers = {"x-ms-request-id": trace_id, **error.headers}
    return web.json_response(body, status=code.status, headers=headers)
