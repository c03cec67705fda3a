"""What the exporter does about faults of the service: played in tests, and told in docs/.

A fault is on one operation, and of one job where the operation is a job's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

COUNTS = "Job_GetTaskCounts"
PREPARATION = "Job_ListPreparationAndReleaseTaskStatus"
JOBS = "Job_List"

ACCOUNT = "account cannot be polled: "
POLL = "poll failed: "


@dataclass(frozen=True)
class Case:
    """A fault on an operation, and what comes of it.

    `code`: of the attempts in azure_batch_exporter_requests_total.
    `log`: beginning of the one warning; None: the poll succeeds.
    `right`: values are those of the service while the fault lasts, where the poll succeeds.
    `pauses`: the account is paused, so its other jobs wait, too.
    """

    fault: str
    operation: str
    code: str
    log: str | None
    says: str
    right: bool = True
    pauses: bool = False

    @property
    def name(self) -> str:
        """Tells it from the others."""
        return f"{self.fault} on {self.operation}"


def _status(fault: str, status: int, text: str, operation: str = COUNTS) -> Case:
    says = "An error of the service fails the poll."
    if status in (408, 500, 502, 503, 504):
        says = "The request is repeated within the interval; if that does not help, the poll fails."
    elif status < 400:
        says = "Only 200 is an answer, and no redirect is followed: credentials stay here."
    return Case(fault, operation, str(status), f"{POLL}HTTP {status} {text}", says)


def _lost(fault: str, status: int, text: str) -> Case:
    says = "One such answer is no proof: Job - Get is asked. As the job exists, the poll fails."
    return Case(fault, COUNTS, str(status), f"{POLL}HTTP {status} {text}", says)


def _refused(fault: str, status: int) -> Case:
    says = "Another token is tried once, if one can be had; then the poll fails."
    return Case(fault, COUNTS, str(status), f"{ACCOUNT}HTTP {status}", says)


def _throttled(fault: str, status: int, says: str) -> Case:
    return Case(fault, COUNTS, str(status), ACCOUNT, says, pauses=True)


def _unreadable(fault: str, text: str = "", operation: str = COUNTS) -> Case:
    says = "The body is no JSON, so there is no answer: the poll fails and nothing of it is shown."
    return Case(fault, operation, "invalid", f"{POLL}{operation}: {text}", says)


def _mistyped(fault: str, text: str = "", operation: str = COUNTS) -> Case:
    says = "A member is not what the API documents: the poll fails as a whole, nothing is guessed."
    return Case(fault, operation, "invalid", f"{POLL}{operation}: {text}", says)


def _empty(fault: str) -> Case:
    says = "Counts that are not there are not taken for 0: the poll fails."
    return Case(fault, COUNTS, "200", f"{POLL}{COUNTS}: the answer has no task counts", says)


def _broken(fault: str) -> Case:
    says = "The connection is given up and the request repeated on another; then the poll fails."
    return Case(fault, COUNTS, "connection", f"{ACCOUNT}{COUNTS}: ", says)


def _hanging(fault: str) -> Case:
    says = "Given up after `request_timeout`; polls of other jobs go on meanwhile."
    return Case(fault, COUNTS, "timeout", f"{POLL}{COUNTS}: no whole answer within", says)


def _too_long(fault: str) -> Case:
    says = "No more than 16 MB of an answer are taken, unpacked: the poll fails."
    return Case(fault, COUNTS, "invalid", f"{POLL}{COUNTS}: the answer is longer than", says)


def _astray(fault: str, text: str) -> Case:
    says = "A listing that cannot be finished is no listing: the poll fails, no part of it is used."
    return Case(fault, PREPARATION, "200", f"{POLL}{PREPARATION}: {text}", says)


def _survived(fault: str, says: str, operation: str = COUNTS) -> Case:
    return Case(fault, operation, "200", None, says)


def _told(fault: str, says: str, operation: str = PREPARATION) -> Case:
    return Case(fault, operation, "200", None, says, right=False)


def _flood(fault: str, text: str, operation: str = COUNTS) -> Case:
    says = "It is more than the API ever sends. It is refused before it costs time or memory."
    return Case(fault, operation, "invalid", f"{POLL}{operation}: {text}", says)


_NO_TIME = "It is no time: there is no series of it, and the record counts."
_LEFT_OUT = (
    "A record that cannot be read is left out and counted in"
    " `azure_batch_exporter_records_invalid_total`; the log says so once."
)
_ESCAPED = "Values of labels are cleaned and escaped: no line of the exposition can be forged."
_ELSEWHERE = "odata.nextLink leads to another origin"
_CIRCLE = "odata.nextLink goes round in a circle"
_ONCE = "Records are known by their ids, so each is counted once, in whatever order."

CASES: tuple[Case, ...] = (
    _status("invalid-query", 400, "InvalidQueryParameterValue"),
    Case(
        "unsupported-version",
        COUNTS,
        "400",
        f"{ACCOUNT}HTTP 400 InvalidQueryParameterValue",
        "Every request would be refused so: the account is down, with cause and cure.",
    ),
    _status("forbidden", 403, "Forbidden"),
    _status("account-disabled", 403, "AccountIsDisabled"),
    _status("insufficient-permissions", 403, "InsufficientAccountPermissions"),
    _status("not-found-html", 404, "Not Found"),
    _status("request-timeout", 408, "RequestTimeout"),
    _status("job-being-terminated", 409, "JobBeingTerminated"),
    _status("invalid-state", 409, "OperationInvalidForCurrentState"),
    _status("condition-not-met", 412, "ConditionNotMet"),
    _status("teapot", 418, "I'm a Teapot"),
    _status("internal-error", 500, "InternalError"),
    _status("operation-timed-out", 500, "OperationTimedOut"),
    _status("bad-gateway", 502, "Bad Gateway"),
    _status("server-busy", 503, "ServerBusy"),
    _status("gateway-timeout", 504, "Gateway Timeout"),
    _status("no-content", 204, "No Content"),
    _status("partial-content", 206, "Partial Content"),
    _status("moved-permanently", 301, "Moved Permanently"),
    _status("found", 302, "Found"),
    _status("not-modified", 304, "Not Modified"),
    _status("temporary-redirect", 307, "Temporary Redirect"),
    _status("redirect-to-itself", 307, "Temporary Redirect"),
    _status("permanent-redirect", 308, "Permanent Redirect"),
    _refused("unauthorized", 401),
    _refused("authentication-failed", 403),
    _refused("token-expired", 401),
    _throttled("too-many-requests", 429, "The account is paused for as long as the service asks."),
    _throttled("too-many-requests-date", 429, "The account is paused until then."),
    _throttled("too-many-requests-silent", 429, "The account is paused for 5 s."),
    _throttled("too-many-requests-nonsense", 429, "The account is paused for 5 s."),
    _throttled("too-many-requests-negative", 429, "The account is paused for 5 s."),
    _throttled(
        "server-busy-retry-after", 503, "The account is paused for as long as the service asks."
    ),
    _lost("job-not-found", 404, "JobNotFound"),
    _lost("job-not-found-once", 404, "JobNotFound"),
    _lost("job-being-deleted", 409, "JobBeingDeleted"),
    Case(
        "not-configured",
        PREPARATION,
        "409",
        f"{POLL}{PREPARATION}: a job that had",
        "Of a job that was seen to have the tasks it cannot be true: the poll fails.",
    ),
    _unreadable("truncated-json", "Input data was truncated"),
    _unreadable("invalid-json", "JSON is malformed"),
    _unreadable("two-documents", "JSON is malformed"),
    _unreadable("empty-body", "Input data was truncated"),
    _unreadable("utf16", "JSON is malformed"),
    _unreadable("html-instead", "JSON is malformed"),
    _unreadable("nan-numbers", "JSON is malformed"),
    _unreadable("infinite-numbers", "JSON is malformed"),
    _mistyped("json-null"),
    _mistyped("json-array"),
    _mistyped("json-text"),
    _mistyped("json-number"),
    _mistyped("numbers-as-words"),
    _mistyped("fractional-numbers"),
    _mistyped("negative-numbers", "Expected `int` >= 0"),
    _mistyped("huge-integers", "Expected `int` <= 2147483647"),
    _mistyped("objects-as-arrays"),
    _mistyped("arrays-as-objects", "", PREPARATION),
    _mistyped("next-link-number", "", PREPARATION),
    _mistyped("missing-members", "Object missing required field `value`", PREPARATION),
    _empty("json-empty-object"),
    _empty("empty-objects"),
    _empty("null-members"),
    _empty("null-objects"),
    _broken("connection-reset"),
    _broken("reset-midway"),
    _broken("closed-without-answer"),
    _broken("not-http"),
    _broken("chunks-broken-off"),
    _broken("length-too-long"),
    _broken("header-flood"),
    _broken("long-header"),
    _broken("not-gzip"),
    _broken("corrupt-gzip"),
    _broken("truncated-gzip"),
    _broken("unknown-encoding"),
    _hanging("never-answering"),
    _hanging("hanging-headers"),
    _hanging("hanging-body"),
    _hanging("slow-body"),
    _astray("next-link-elsewhere", _ELSEWHERE),
    _astray("next-link-relative", _ELSEWHERE),
    _astray("next-link-no-url", _ELSEWHERE),
    _astray("next-link-to-itself", _CIRCLE),
    _astray("next-link-circle", _CIRCLE),
    _astray("next-link-huge", "odata.nextLink is longer than 8192"),
    _status("next-page-refused", 400, "InvalidQueryParameterValue", PREPARATION),
    _status("next-page-fails", 500, "InternalError", PREPARATION),
    _survived("next-link-empty", "An empty link is the end of the list.", PREPARATION),
    _survived("empty-pages", "A page without records is a page.", PREPARATION),
    _survived("repeated-pages", _ONCE, PREPARATION),
    _survived("duplicate-records", _ONCE, PREPARATION),
    _survived("reordered-records", _ONCE, PREPARATION),
    _survived("trailers", "What comes behind a body is no header."),
    _survived("continued", "Answers before the answer are skipped."),
    _survived("gzip-in-capitals", "It is gzip."),
    _survived("byte-order-mark", "It is skipped."),
    _survived("numbers-as-text", "Numbers in quotes are numbers: so the API writes int64."),
    _survived("unknown-members", "What is not known is skipped."),
    _survived("duplicate-keys", "The last of several members of one name counts."),
    _survived("invalid-utf8", "Texts that are not used are not looked at."),
    _survived("dates-without-zone", "A time without zone is UTC.", PREPARATION),
    _survived("date-ahead", "Readings by changes go by the service's clock, and overlap."),
    _survived("date-behind", "Readings by changes go by the service's clock, and overlap."),
    _survived("date-missing", "Both clocks are taken to be the same."),
    _survived("date-nonsense", "Both clocks are taken to be the same."),
    _told("growing-list", "All pages are read, and what they hold is shown."),
    _told(
        "next-link-dropped",
        "Nobody can know that nodes are missing; the next full listing corrects it.",
    ),
    _told("dates-first", _NO_TIME),
    _told("dates-last", _NO_TIME),
    _told("dates-out-of-range", _NO_TIME),
    _told("dates-nonsense", _NO_TIME),
    _told(
        "foreign-pools",
        "No more than 20 pools of a job are shown. Records of others are left out and counted in"
        " `azure_batch_exporter_records_invalid_total`; the log says so once.",
    ),
    _told("texts-as-numbers", _LEFT_OUT),
    _told("ids-with-surrogates", "Half of a character is replaced by U+FFFD."),
    _told("unknown-states", "Counted under the state `other`."),
    _told("id-huge", "Ids of nodes are no labels."),
    _told("ids-with-quotes", _ESCAPED),
    _told("ids-with-newlines", _ESCAPED),
    _told("ids-with-nul", _ESCAPED),
    _told("ids-with-emoji", _ESCAPED),
    _told("ids-with-slashes", _ESCAPED),
    _told("label-injection", _ESCAPED),
    *(
        replace(case, operation=JOBS, log=(case.log or "").replace(case.operation, JOBS) or None)
        for case in (
            _status("internal-error", 500, "InternalError"),
            _status("forbidden", 403, "Forbidden"),
            _refused("unauthorized", 401),
            _unreadable("truncated-json", "Input data was truncated"),
            _mistyped("json-array"),
            _broken("connection-reset"),
            _hanging("never-answering"),
            _astray("next-link-to-itself", _CIRCLE),
            _survived("empty-pages", "A page without records is a page."),
            _survived("duplicate-records", _ONCE),
            _survived("reordered-records", _ONCE),
        )
    ),
)
"""Faults that are played side by side on several accounts."""

HEAVY: tuple[Case, ...] = (
    _too_long("huge-body"),
    _too_long("gzip-bomb"),
    _too_long("endless-body"),
    _flood("record-flood", "the answer has more than 150000 values", PREPARATION),
    _flood("value-flood", "the answer has more than 150000 values"),
    _flood("tiny-chunks", "the answer has more than 10000 chunks"),
    _flood("pool-flood", "Expected `array` of length <= 2000", PREPARATION),
    _mistyped("nested-deep", "maximum recursion depth"),
    _mistyped("nested-deep-unknown", "maximum recursion depth"),
    _astray("endless-empty-pages", "pages without records"),
)
"""Faults that take time or memory: played one by one."""
