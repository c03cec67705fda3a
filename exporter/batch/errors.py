"""The failures of a poll. `reason` is the fixed word of its kind."""

from __future__ import annotations

from typing import ClassVar, Literal

from exporter.config.redaction import redact

MAX_TEXT = 1000
"""Characters of an error answer's text that are kept."""


class PollError(Exception):
    """A poll could not be finished. Secrets in its text are masked.

    Each expected failure is a subclass. An unexpected exception becomes a plain PollError.

    `account_wide`: every poll of the account fails for the same cause.
    `is_transient`: the same request may succeed a little later.
    `cause`, `cure`: the probable cause, as a fixed word, and what to do about it. Set when the
    poll ends: see `exporter.diagnosis`. Until then the cause is the reason. `trace`: the ids by
    which Microsoft's support finds the request, or "".
    """

    reason: ClassVar[str] = "internal"
    account_wide: ClassVar[bool] = False
    is_transient: bool = False
    cause: str
    cure: str = ""
    trace: str = ""

    def __init__(self, text: str = "") -> None:
        # An answer may have megabytes of text.
        super().__init__(redact(text[: 4 * MAX_TEXT])[:MAX_TEXT])
        self.cause = self.reason


class CredentialError(PollError):
    """No token was issued for the account.

    `code`: what failed: see `exporter.diagnosis.sign_in_causes`. `retry_after`: seconds that the
    issuer asks to wait. `is_unavailable`: the way of signing in is not there, so that another may
    be tried.
    """

    reason = "credential"
    account_wide = True

    def __init__(
        self,
        text: str = "",
        code: str = "",
        *,
        trace: str = "",
        retry_after: float | None = None,
        is_unavailable: bool = False,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.trace = trace
        self.retry_after = retry_after
        self.is_unavailable = is_unavailable


Step = Literal["dns", "tls", "proxy", "credentials", "connection"]


class RequestTimeout(PollError):
    """No complete answer arrived within the request timeout."""

    reason = "timeout"
    is_transient = True


class ConnectionFailed(PollError):
    """The service could not be reached, or the connection broke.

    `step`: what failed: `dns`, `tls`, `proxy`, `credentials` of a proxy, or `connection` for
    everything else.
    """

    reason = "connection"
    account_wide = True
    is_transient = True

    def __init__(self, text: str, step: Step = "connection") -> None:
        super().__init__(text)
        self.step = step


class InvalidResponse(PollError):
    """The answer is not what the API documents: not JSON, a wrong type, a missing member."""

    reason = "invalid"


class TooLarge(PollError):
    """A list has more records than the exporter keeps of one job or account."""

    reason = "too_large"


class Throttled(PollError):
    """The account is paused, as the service asked, for longer than the poll may wait."""

    reason = "throttled"
    account_wide = True


class ServiceError(PollError):
    """An error answer of the service (BatchError).

    `status`: the HTTP status. `code`: BatchError.code, or "" where the body is no BatchError.
    `message`: its text, without RequestId and Time. `values`: its key-value pairs.
    """

    reason = "service"

    def __init__(
        self,
        status: int,
        code: str = "",
        message: str = "",
        values: tuple[tuple[str, str], ...] = (),
    ) -> None:
        details = "; ".join(f"{key}: {value}" for key, value in values[:10])
        text = " ".join(part for part in (f"HTTP {status}", code, message) if part)
        super().__init__(f"{text} ({details})" if details else text)
        self.status = status
        self.code = code
        self.message = message
        self.values = values
        # The same rule as in Microsoft's own clients.
        is_of_server = status >= 500 and status not in (501, 505)
        self.is_transient = is_of_server or status in (408, 429)


class AuthenticationFailed(ServiceError):
    """The service does not accept the credentials."""

    reason = "authentication"
    account_wide = True


class UnsupportedVersion(ServiceError):
    """The service does not have the version of the API that was asked for."""

    reason = "api_version"
    account_wide = True


class Forbidden(ServiceError):
    """The credentials are accepted, but not for this operation.

    `others_succeed`: another request has just succeeded, so it is not the network.
    """

    reason = "forbidden"
    others_succeed: bool = False


class TooManyRequests(ServiceError):
    """The service asks for fewer requests."""

    reason = "throttled"
    account_wide = True


class JobGone(ServiceError):
    """The job does not exist, or is being deleted."""

    reason = "gone"


class TaskGone(ServiceError):
    """The task does not exist in its job."""

    reason = "task_gone"


class NotModified(ServiceError):
    """The object still has the eTag that was given: no error, and there is nothing to read."""

    reason = "not_modified"


class TaskNotConfigured(ServiceError):
    """The job has neither a preparation nor a release task: nothing to read, and no error."""

    reason = "not_configured"
