"""How tasks of any kind fail: the documented codes, with the category and text the service gives.

The category is PascalCase, as every recording of the service has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Failure:
    """A failureInfo, or a job's schedulingError: category `UserError` or `ServerError`."""

    category: str
    code: str
    message: str
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """The container that a task ran in, or `error`, for which none ran."""

    id: str
    state: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class FailureKind:
    """One way to fail. `exit_code` is None where no process ran (an error of pre-processing).

    `retryable`: the service tries again while the task's maxTaskRetryCount allows it, which it
    does for exit codes only. `container`: what is said of the container that did not start.
    """

    failure: Failure
    exit_code: int | None
    retryable: bool
    container: ContainerInfo | None = None


def _exit(code: int) -> FailureKind:
    text = "The task process exited with an unexpected exit code"
    return FailureKind(
        Failure(
            "UserError",
            "FailureExitCode",
            "The task exited with an exit code representing a failure",
            (("Message", text), ("AdditionalErrorCode", "FailureExitCode")),
        ),
        exit_code=code,
        retryable=True,
    )


def _before_start(category: str, code: str, message: str, *details: tuple[str, str]) -> FailureKind:
    return FailureKind(Failure(category, code, message, details), exit_code=None, retryable=False)


def _after_exit(category: str, code: str, message: str) -> FailureKind:
    return FailureKind(Failure(category, code, message), exit_code=0, retryable=False)


ENDED_BY_USER = _before_start("UserError", "TaskEnded", "Task Was Ended by User Request")
ENDED_BY_TIME_LIMIT = FailureKind(
    Failure("ServerError", "TaskEnded", "The maximum wall clock time of the job was exceeded"),
    exit_code=-1073741510,  # 0xC000013A, which the service reports of a process it ended itself
    retryable=False,
)
NODE_LOST = _before_start("ServerError", "Unknown", "The compute node went away while the task ran")

_BLOB = "One of the specified Azure Blob(s) is not found"

FAILURE_KINDS: Mapping[str, FailureKind] = MappingProxyType(
    {
        "exit-1": _exit(1),
        "exit-2": _exit(2),
        "exit-127": _exit(127),
        "exit-137": _exit(137),
        "exit-negative": _exit(-1073741819),
        "program-not-found": _before_start(
            "UserError",
            "CommandProgramNotFound",
            "The specified command program is not found",
            ("Message", "The system cannot find the file specified."),
        ),
        "blob-not-found": _before_start(
            "UserError", "BlobNotFound", _BLOB, ("FilePath", "inputs/scene.tar")
        ),
        "blob-access-denied": _before_start(
            "UserError",
            "BlobAccessDenied",
            "Access for one of the specified Azure Blob(s) is denied",
        ),
        "container-image": _before_start(
            "UserError",
            "ContainerInvalidImage",
            "One or more container images specified are invalid",
        ),
        "container-start": FailureKind(
            Failure("UserError", "ContainerMiscError", "The container could not be started"),
            exit_code=125,
            retryable=False,
            container=ContainerInfo(
                id="",
                state="",
                error='OCI runtime create failed: exec: "run.sh": executable file not found in '
                "$PATH: unknown",
            ),
        ),
        "blob-timed-out": _before_start(
            "ServerError",
            "BlobDownloadTimedOut",
            "Downloading one of the specified Azure Blob(s) has timed out",
        ),
        "disk-full": _before_start(
            "ServerError", "DiskFull", "There is not enough disk space on the node to run the task"
        ),
        "file-create": _before_start(
            "ServerError",
            "ResourceFileCreateFailed",
            "Failed to create a resource file on the node",
        ),
        "unknown": _before_start("ServerError", "Unknown", "An internal error occurred"),
        "upload-misc": _after_exit(
            "ServerError", "FileUploadMiscError", "A miscellaneous error in uploading output files"
        ),
        "upload-denied": _after_exit(
            "UserError", "FileUploadAccessDenied", "Access to the output container is denied"
        ),
    }
)


def _scheduling(code: str, message: str) -> Failure:
    return Failure("UserError", code, message)


SCHEDULING_ERRORS: tuple[Failure, ...] = (
    _scheduling(
        "AutoPoolCreationFailedWithQuotaReached",
        "The auto pool could not be created because the pool quota was reached",
    ),
    _scheduling(
        "InvalidApplicationPackageReferencesInAutoPool",
        "The application package references of the auto pool are invalid",
    ),
    _scheduling(
        "InvalidAutoScaleFormulaInAutoPool", "The autoscale formula of the auto pool is invalid"
    ),
    _scheduling("InvalidCertificatesInAutoPool", "The certificates of the auto pool are invalid"),
    _scheduling("InvalidAutoPoolSettings", "The settings of the auto pool are invalid"),
    Failure("ServerError", "Unknown", "An internal error occurred"),
)
"""Why a job's auto pool cannot be made."""
