"""The documented categories and codes of failureInfo: only these become label values.

Sources: learn.microsoft.com, "Batch status and error codes"; TaskFailureInformationCodes of
Microsoft's .NET client; recorded answers. The service adds codes without notice: those become
`other`.
"""

from __future__ import annotations

from exporter.batch.models import FailureInfo, enum_value

CATEGORIES = ("usererror", "servererror")
UNKNOWN = "unknown"
OTHER = "other"

_DOCUMENTED = """
ApplicationPackageError BlobAccessDenied BlobDownloadMiscError BlobDownloadTimedOut
BlobNotFound CommandLaunchFailed CommandProgramNotFound ContainerInvalidImage
ContainerInvalidRegistry ContainerInvalidSettings ContainerMiscError DiskFull FailureExitCode
FileUploadAccessDenied FileUploadConflict FileUploadContainerNotFound FileUploadMiscError
FileUploadTimedOut MaxInternalRetryCountReached MountConfigurationError
ResourceContainerAccessDenied ResourceContainerListMiscError ResourceContainerListTimedOut
ResourceContainerNotFound ResourceDirectoryCreateFailed ResourceFileCreateFailed
ResourceFileWriteFailed TaskEnded TaskSchedulingConstraintFailed Unknown
"""

_CODES = {code.lower(): code for code in _DOCUMENTED.split()}


def category(failure: FailureInfo | None) -> str:
    """`usererror`, `servererror`, or `unknown`."""
    return enum_value(failure.category if failure else None, CATEGORIES) or UNKNOWN


def code(failure: FailureInfo | None) -> str:
    """A documented code as the documentation writes it, or `other`."""
    given = (failure.code if failure else None) or ""
    return _CODES.get(given.lower(), OTHER)
