"""What the service answers when it refuses: HTTP status, code, text and values."""

from dataclasses import dataclass


@dataclass(eq=False)
class BatchError(Exception):
    """A refusal; `values` are (key, value) pairs, `headers` go on the response."""

    status: int
    code: str
    text: str
    values: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


def invalid_parameter(name: str, value: str, reason: str) -> BatchError:
    """400: a query parameter that the service does not understand, and why."""
    return BatchError(
        400,
        "InvalidQueryParameterValue",
        "The value provided for one of the query parameters in the request URI is invalid.",
        (("QueryParameterName", name), ("QueryParameterValue", value), ("Reason", reason)),
    )


def unsupported_parameter(name: str, value: str) -> BatchError:
    """400: a query parameter that this operation does not have."""
    return BatchError(
        400,
        "UnsupportedQueryParameter",
        "One of the query parameters specified in the request URI is not supported.",
        (("QueryParameterName", name), ("QueryParameterValue", value)),
    )


def missing_parameter(name: str) -> BatchError:
    """400: a query parameter that every request must have."""
    return BatchError(
        400,
        "MissingRequiredQueryParameter",
        "A query parameter that's mandatory for this request is not specified.",
        (("QueryParameterName", name),),
    )


def unsupported_version(version: str) -> BatchError:
    """400: a version that the service does not have. Its documents name another code."""
    return BatchError(
        400,
        "InvalidQueryParameterValue",
        "Value for one of the query parameters specified in the request URI is invalid.",
        (("QueryParameterName", "api-version"), ("QueryParameterValue", version)),
    )


def authentication_failed(detail: str, *, status: int = 403) -> BatchError:
    """The request is not proven to come from someone who may read the account."""
    return BatchError(
        status,
        "AuthenticationFailed",
        "Server failed to authenticate the request. Make sure the value of Authorization header "
        "is formed correctly including the signature.",
        (("AuthenticationErrorDetail", detail),),
        (("WWW-Authenticate", "Bearer"),) if status == 401 else (),
    )


def job_not_found() -> BatchError:
    """404 for a job."""
    return BatchError(404, "JobNotFound", "The specified job does not exist.")


def task_not_found() -> BatchError:
    """404 for a task."""
    return BatchError(404, "TaskNotFound", "The specified task does not exist.")


def pool_not_found() -> BatchError:
    """404 for a pool."""
    return BatchError(404, "PoolNotFound", "The specified pool does not exist.")


def job_schedule_not_found() -> BatchError:
    """404 for a job schedule."""
    return BatchError(404, "JobScheduleNotFound", "The specified job schedule does not exist.")


def neither_preparation_nor_release() -> BatchError:
    """409: the job has nothing whose status could be listed."""
    return BatchError(
        409,
        "JobPreparationTaskOrReleaseTaskNotSpecified",
        "The specified job does not have either job preparation task or job release task.",
    )


def invalid_uri() -> BatchError:
    """400: there is nothing at this path."""
    return BatchError(
        400, "InvalidUri", "The requested URI does not represent any resource on the server."
    )


def unsupported_verb(method: str, *, allowed: str) -> BatchError:
    """405: the simulated account is read-only."""
    return BatchError(
        405,
        "UnsupportedHttpVerb",
        "The resource doesn't support the specified HTTP verb.",
        (("HttpVerb", method),),
        (("Allow", allowed),),
    )


def condition_not_met() -> BatchError:
    """412: the entity is not in the version that the request asked for."""
    return BatchError(
        412,
        "ConditionNotMet",
        "The condition specified using HTTP conditional header(s) is not met.",
    )
