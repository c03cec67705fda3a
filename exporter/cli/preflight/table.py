"""The report as text, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exporter.batch.transport import MAX_SKEW
from exporter.cli.preflight.report import AccountReport, Range, Report, RuleReport


def render(report: Report) -> str:
    """The report as text."""
    lines = [line for account in report.accounts for line in (*_account(account), "")]
    problems = [problem for account in report.accounts for problem in account.problems]
    for problem in problems:
        lines.append(f"{problem.level}: {problem.where}: {problem.cause}: {problem.text}")
        lines.append(f"  cure: {problem.cure}")
    errors = sum(problem.level == "error" for problem in problems)
    end = "ready to run" if report.ok else "not ready"
    lines.append(f"{report.file}: {end}, {errors} error(s), {len(problems) - errors} warning(s)")
    return "\n".join(lines) + "\n"


def _account(account: AccountReport) -> Iterator[str]:
    yield f"account {account.name} at {account.endpoint}"
    yield ""
    yield from _columns(
        [
            ("sign in", _mark(account.sign_in.is_ok), account.method),
            ("clock", *_clock(account.clock_offset)),
            ("API version", _mark(account.is_version_accepted), account.api_version),
        ]
    )
    yield ""
    operations = [
        (each.name, _mark(each.is_ok), ", ".join(each.needed_for)) for each in account.operations
    ]
    yield from _columns([("operation", "", "needed for"), *operations])
    yield ""
    header = ("rule", "", "jobs", "groups", "series", "requests/min", "for example")
    yield from _columns([header, *map(_rule, account.rules)])
    yield ""
    yield (
        f"  in all: {account.jobs} jobs, about {account.series} series (at most"
        f" {account.max_series}), {_range(account.requests_per_minute)} requests a minute (at most"
        f" {account.max_requests_per_minute:g}); the check took {account.requests_made}"
    )


def _rule(rule: RuleReport) -> tuple[str, ...]:
    return (
        rule.where.rpartition(".")[2],
        rule.rule,
        f"{rule.jobs} of {rule.matches}" if rule.taken_by else str(rule.jobs),
        "-" if rule.groups is None else str(rule.groups),
        str(rule.series),
        _range(rule.requests_per_minute),
        ", ".join(rule.examples) or "-",
    )


def _clock(offset: float | None) -> tuple[str, str]:
    """Whether this machine's clock is right enough, and by how much it is wrong."""
    if not offset:
        return ("not known", "") if offset is None else ("ok", "in step")
    side = "behind" if offset > 0 else "ahead of"
    return _mark(abs(offset) <= MAX_SKEW), f"{abs(offset):g} s {side} the service's"


def _mark(is_ok: bool | None) -> str:
    return {True: "ok", False: "failed", None: "not known"}[is_ok]


def _range(requests: Range) -> str:
    least, most = f"{requests.idle:.0f}", f"{requests.busy:.0f}"
    return most if least == most else f"{least} to {most}"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield ("  " + "  ".join(cells)).rstrip()
