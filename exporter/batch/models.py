"""What the service answers, as typed values.

Members are snake case here and camel case on the wire. Every member may be missing or null,
because the specification marks nearly all as optional and older versions of the API lack some.
Other members are skipped. Numbers in quotes (int64 on the wire) are read as numbers. Enumerations
stay text: see `enum_value`.
"""

from __future__ import annotations

import datetime as dt
import math
import sys
from functools import lru_cache
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec.structs import force_setattr, replace

from exporter.config.redaction import (
    MASK,
    are_suspect_ids,
    is_secret_name,
    is_suspect,
    redact,
    redact_id,
)

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
"""A count, an int32 of the API. A record with another number is invalid."""

Time = Annotated[str, "time"]
"""A time as it is on the wire; `unix_time` reads it. Text, because msgspec would refuse a whole
record for a time that is none, and would round the service's seven digits up."""

MAX_TEXT = 10_000
"""Characters of a text that are kept when it is masked."""

MAX_IDS = 256
"""Characters of ids of which is remembered whether they may have a secret."""

MAX_PAGE = 2_000
"""Records of a page. The API allows 1,000."""


class Record(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Base of all models: frozen, camel case on the wire.

    No record can be part of a reference cycle, so the garbage collector skips the thousands that a
    page brings.
    """


class Redacted(Record, frozen=True):
    """A record whose texts may hold a secret. Each text is masked and cut when it is decoded."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            # Not cut before: half a secret has no shape.
            value = getattr(self, name)
            mask = redact_id if name == "id" or name.endswith("_id") else redact
            if (
                isinstance(value, str)
                and (masked := mask(value[: 2 * MAX_TEXT])[:MAX_TEXT]) != value
            ):
                force_setattr(self, name, masked)


def _may_have_secret(pool_id: str, node_id: str) -> bool:
    """Whether the ids of a node may hold a secret."""
    return len(pool_id) + len(node_id) > MAX_IDS or _are_suspect(pool_id, node_id)


@lru_cache(16_384)
def _are_suspect(pool_id: str, node_id: str) -> bool:
    # There are 100,000 records, and the same nodes in those of each job.
    return are_suspect_ids(f"{pool_id},{node_id}")


def _is_suspect(texts: str) -> bool:
    """Whether short texts may hold a secret, or are too long to be searched."""
    return len(texts) > MAX_TEXT or is_suspect(texts)


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list answer. Without `value` it is none: what answers is not the service."""

    value: Annotated[tuple[T, ...], msgspec.Meta(max_length=MAX_PAGE)]
    next_link: str | None = msgspec.field(default=None, name="odata.nextLink")


class NameValuePair(Redacted, frozen=True):
    """A name and its value, both free text; an error answer calls the name `key`.

    The value of a name such as `password` is masked.
    """

    name: str | None = None
    value: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name and self.value and is_secret_name(self.name):
            force_setattr(self, "value", MASK)


class FailureInfo(Redacted, frozen=True):
    """failureInfo (TaskFailureInformation): why a task failed."""

    category: str | None = None
    code: str | None = None
    message: str | None = None
    details: tuple[NameValuePair, ...] | None = None


class ContainerInfo(Redacted, frozen=True):
    """containerInfo: the container that a task ran in. `error`: why it could not start or run."""

    error: str | None = None


class PoolInfo(Redacted, frozen=True):
    """The pool that a job names. A job with an auto pool has no `pool_id` here."""

    pool_id: str | None = None


class JobExecutionInfo(Redacted, frozen=True):
    """When and where a job runs. `pool_id` is the real pool, that of an auto pool too.

    `scheduling_error`: why the service could not start the job.
    """

    start_time: Time | None = None
    end_time: Time | None = None
    pool_id: str | None = None
    terminate_reason: str | None = None
    scheduling_error: FailureInfo | None = None


class Job(Redacted, frozen=True):
    """A job, from Job_Get or Job_List."""

    id: str
    display_name: str | None = None
    state: str | None = None
    state_transition_time: Time | None = None
    creation_time: Time | None = None
    priority: int | None = None
    uses_task_dependencies: bool | None = None
    pool_info: PoolInfo | None = None
    execution_info: JobExecutionInfo | None = None
    metadata: tuple[NameValuePair, ...] | None = None

    @property
    def pool_id(self) -> str:
        """The pool that the job runs on, or "" if it has none yet."""
        real = self.execution_info.pool_id if self.execution_info else None
        asked = self.pool_info.pool_id if self.pool_info else None
        return real or asked or ""

    def spelled(self, pool_id: str, code: str) -> Job:
        """The same job, with this id of its pool and this code of its scheduling error."""
        info = self.execution_info or JobExecutionInfo()
        error = info.scheduling_error and replace(info.scheduling_error, code=code)
        return replace(self, execution_info=replace(info, pool_id=pool_id, scheduling_error=error))


class Counts(Record, frozen=True):
    """Tasks, or task slots, by state. `running` includes preparing; completed by result."""

    active: Count | None = None
    running: Count | None = None
    completed: Count | None = None
    succeeded: Count | None = None
    failed: Count | None = None


class TaskCountsResult(Counts, frozen=True):
    """Job_GetTaskCounts. Before 2020-09-01.12.0 the counts were members of the answer itself."""

    task_counts: Counts | None = None
    task_slot_counts: Counts | None = None


class SpecialTaskExecutionInfo(Record, frozen=True):
    """One run of a job preparation or release task on a node: the latest one.

    Its texts are not masked: there are 200,000 of these, and `enum_value` replaces other values.

    `retry_count` is documented for preparation only, but is read for release as well.
    """

    state: str | None = None
    start_time: Time | None = None
    end_time: Time | None = None
    exit_code: int | None = None
    failure_info: FailureInfo | None = None
    container_info: ContainerInfo | None = None
    result: str | None = None
    retry_count: Count | None = None


class NodeTaskStatus(Redacted, frozen=True):
    """JobPreparationAndReleaseTaskExecutionInformation: both special tasks on one node."""

    pool_id: str | None = None
    node_id: str | None = None
    preparation: SpecialTaskExecutionInfo | None = msgspec.field(
        default=None, name="jobPreparationTaskExecutionInfo"
    )
    release: SpecialTaskExecutionInfo | None = msgspec.field(
        default=None, name="jobReleaseTaskExecutionInfo"
    )

    def __post_init__(self) -> None:
        if _may_have_secret(self.pool_id or "", self.node_id or ""):
            super().__post_init__()


class TaskExecutionInfo(Redacted, frozen=True):
    """How often and with what result a task ran."""

    start_time: Time | None = None
    end_time: Time | None = None
    exit_code: int | None = None
    failure_info: FailureInfo | None = None
    container_info: ContainerInfo | None = None
    result: str | None = None
    retry_count: Count | None = None
    requeue_count: Count | None = None

    def __post_init__(self) -> None:
        if self.result and _is_suspect(self.result):
            super().__post_init__()


class NodeInfo(Redacted, frozen=True):
    """Where a task runs. Empty if it never ran."""

    pool_id: str | None = None
    node_id: str | None = None

    def __post_init__(self) -> None:
        if _may_have_secret(self.pool_id or "", self.node_id or ""):
            super().__post_init__()


class TaskStatistics(Redacted, frozen=True):
    """Resources that a task used ($expand=stats). Durations are ISO 8601: `duration_seconds`."""

    last_update_time: Time | None = None
    user_cpu_time: str | None = msgspec.field(default=None, name="userCPUTime")
    kernel_cpu_time: str | None = msgspec.field(default=None, name="kernelCPUTime")
    wall_clock_time: str | None = None
    wait_time: str | None = None
    read_iops: int | None = msgspec.field(default=None, name="readIOps")
    write_iops: int | None = msgspec.field(default=None, name="writeIOps")
    read_io_gib: float | None = msgspec.field(default=None, name="readIOGiB")
    write_io_gib: float | None = msgspec.field(default=None, name="writeIOGiB")


class Task(Redacted, frozen=True):
    """A task, from Task_Get or Task_List."""

    id: str
    state: str | None = None
    state_transition_time: Time | None = None
    creation_time: Time | None = None
    last_modified: Time | None = None
    e_tag: str | None = None
    required_slots: Count | None = None
    execution_info: TaskExecutionInfo | None = None
    node_info: NodeInfo | None = None
    stats: TaskStatistics | None = None

    def __post_init__(self) -> None:
        if are_suspect_ids(self.id) or _is_suspect(f"{self.state or ''},{self.e_tag or ''}"):
            super().__post_init__()


class PoolNodeCounts(Redacted, frozen=True):
    """Nodes of one pool by state (camel case, with `total`), from Account_ListPoolNodeCounts."""

    pool_id: str | None = None
    dedicated: dict[str, Count | None] | None = None
    low_priority: dict[str, Count | None] | None = None


class BatchErrorMessage(Redacted, frozen=True):
    """The text of an error, with RequestId and Time on separate lines."""

    value: str | None = None


class BatchErrorDetail(NameValuePair, frozen=True):
    """A further fact about an error."""

    name: str | None = msgspec.field(default=None, name="key")


class BatchError(Redacted, frozen=True):
    """The body of an error answer."""

    code: str
    message: BatchErrorMessage | None = None
    values: tuple[BatchErrorDetail, ...] | None = None

    @property
    def text(self) -> str:
        """The message without its RequestId and Time lines, because they differ each time."""
        lines = (self.message.value or "").splitlines() if self.message else []
        return " ".join(line for line in lines if not line.startswith(("RequestId:", "Time:")))


def select(record: type[Record]) -> str:
    """$select for a model: the names of its members on the wire."""
    return ",".join(field.encode_name for field in msgspec.structs.fields(record))


_parse_time = dt.datetime.fromisoformat
_END_OF_TIME = dt.datetime(2200, 1, 1, tzinfo=dt.UTC).timestamp()


def unix_time(text: Time | None) -> float | None:
    """Seconds since 1970 of a time from the wire, cut to microseconds; without a zone it is UTC.

    None where the text is no time, or the year is impossible: .NET's smallest and largest times
    mean that none was set.
    """
    if text is None:
        return None
    try:
        moment = _parse_time(text)
    except ValueError:
        return None
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
    return seconds if 0.0 <= seconds < _END_OF_TIME else None


def may_be_same(one: float | None, other: float | None) -> bool:
    """Whether two Unix times may be one and the same.

    One that could not be read proves nothing, and older state files have them rounded to
    microseconds.
    """
    return one is None or other is None or abs(one - other) < 1e-5


OTHER = "other"
"""A state, a result or a code that is new to us. It is never counted as a known one."""


def enum_value(value: str | None, known: tuple[str, ...]) -> str | None:
    """`value` in lower case; `other` where it is not one of `known`; None where there is none.

    The service writes UserError in some places and usererror in others. The text is interned, so
    that 100,000 records share it.
    """
    if not value:
        return None
    lower = value.lower()
    return sys.intern(lower) if lower in known else OTHER


RESULTS = ("success", "failure")


def result_of(run: SpecialTaskExecutionInfo | TaskExecutionInfo) -> str | None:
    """The result of a completed run: `success`, `failure` or `other`; None: nobody can know.

    A run may have no `result`: then its failureInfo and its exit code decide.
    """
    if run.result:
        return enum_value(run.result, RESULTS)
    if run.failure_info is not None or run.exit_code:
        return "failure"
    return None if run.exit_code is None else "success"


_MAX_TIMESPAN = "P10675199DT2H48M5.4775807S"


def duration_seconds(text: str) -> float:
    """Seconds in an ISO 8601 duration, to the microsecond.

    .NET's largest duration means "no limit" and is infinite. ValueError where the text is no
    duration, or counts in months or years.
    """
    return (
        math.inf if text == _MAX_TIMESPAN else msgspec.convert(text, dt.timedelta).total_seconds()
    )
