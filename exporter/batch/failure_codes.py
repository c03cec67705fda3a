"""The documented categories and codes of failures.

Sources: learn.microsoft.com, "Batch status and error codes"; the constants of Microsoft's .NET
client; recorded answers. The service adds codes without notice: `exporter.batch.spellings`.
"""

from __future__ import annotations

from exporter.batch.models import OTHER, FailureInfo, enum_value

CATEGORIES = ("usererror", "servererror")
UNKNOWN = "unknown"

# Of tasks; of jobs (schedulingError); of pools (resizeErrors, autoScaleRun.error).
_DOCUMENTED = """
ApplicationPackageError BlobAccessDenied BlobDownloadMiscError BlobDownloadTimedOut
BlobNotFound CommandLaunchFailed CommandProgramNotFound ContainerInvalidImage
ContainerInvalidRegistry ContainerInvalidSettings ContainerMiscError DiskFull FailureExitCode
FileUploadAccessDenied FileUploadConflict FileUploadContainerNotFound FileUploadMiscError
FileUploadTimedOut MaxInternalRetryCountReached MountConfigurationError
ResourceContainerAccessDenied ResourceContainerListMiscError ResourceContainerListTimedOut
ResourceContainerNotFound ResourceDirectoryCreateFailed ResourceFileCreateFailed
ResourceFileWriteFailed TaskEnded TaskSchedulingConstraintFailed Unknown

AutoPoolCreationFailedWithQuotaReached InvalidApplicationPackageReferencesInAutoPool
InvalidAutoPoolSettings InvalidAutoScaleFormulaInAutoPool InvalidCertificatesInAutoPool
JobBeingTerminated JobPreparationTaskFailed JobTerminationAwaitingNodeProcessing

AccountCoreQuotaReached AccountLowPriorityCoreQuotaReached AccountSpotCoreQuotaReached
AccountVMSeriesCoreQuotaReached AllocationFailed AllocationTimedout
AutoScalingFormulaEvaluationError CommunicationEnabledPoolReachedMaxVMCount
DependentResourceNotFound DiskEncryptionFailure FailedIdentityOperation IncompatibleVMSize
MissingPublisherPropertyInMarketPlacePlan OperationsOnImageRestrictedByPolicy
OperationsOnLoadBalancerRestrictedByPolicy OperationsOnNetworkSecurityGroupRestrictedByPolicy
OperationsOnPrivateEndpointRestrictedByPolicy OperationsOnPrivateLinkRestrictedByPolicy
OperationsOnPublicIPRestrictedByPolicy OperationsOnVirtualNetworkRestrictedByPolicy
OperationsRestrictedByPolicy OverconstrainedAllocationRequestError RemoveNodesFailed
ResizeStopped UnsupportedVMSize
"""

DOCUMENTED = {code.lower(): code for code in _DOCUMENTED.split()}
"""The codes as the documentation writes them, by their lower case."""


def category(failure: FailureInfo | None) -> str:
    """`usererror`, `servererror`, or `unknown`."""
    found = enum_value(failure.category if failure else None, CATEGORIES)
    return UNKNOWN if found in (None, OTHER) else found
