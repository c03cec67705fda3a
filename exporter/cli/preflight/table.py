"""The report for people: aligned columns, and colour where somebody looks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from exporter.batch.transport import MAX_SKEW
from exporter.cli.preflight.forecast import AccountForecast, Answer, Problem, Range, Report

Paint = Callable[[str], str]

_COLOURS = {"ok": "32", "failed": "31", "error": "31", "warning": "33"}


def wants_colour(stream: TextIO) -> bool:
    """Whether colours do no harm there: no-color.org."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def render(report: Report, *, colour: bool = False) -> str:
    """The report as text."""
    paint = _paint if colour else lambda word: word
    lines = [line for account in report.accounts for line in (*_account(account, paint), "")]
    problems = [problem for account in report.accounts for problem in account.problems]
    lines += [line for problem in problems for line in _problem(problem, paint)]
    errors = sum(problem.level == "error" for problem in problems)
    end = "ready to run" if report.ok else "not ready"
    lines.append(f"{report.file}: {end}, {errors} error(s), {len(problems) - errors} warning(s)")
    return "\n".join(lines) + "\n"


def _account(account: AccountForecast, paint: Paint) -> Iterable[str]:
    yield f"account {account.name} at {account.endpoint}"
    yield ""
    yield from _columns(
        [
            ("sign in", _mark(account.sign_in.is_ok), account.method),
            ("clock", *_clock(account.clock_offset)),
            ("API version", _mark(account.is_version_accepted), account.api_version),
        ],
        paint,
    )
    yield ""
    yield from _columns(
        [("operation", "", "needed for"), *(_operation(each) for each in account.operations)],
        paint,
    )
    yield ""
    yield from _columns(
        [
            ("rule", "", "jobs", "groups", "series", "requests/min", "for example"),
            *(
                (
                    each.where.rpartition(".")[2],
                    each.rule,
                    f"{each.jobs}" + (f" of {each.matches}" if each.taken_by else ""),
                    "-" if each.groups is None else str(each.groups),
                    str(each.series),
                    _range(each.requests_per_minute),
                    ", ".join(each.examples) or "-",
                )
                for each in account.rules
            ),
        ],
        paint,
    )
    yield ""
    yield (
        f"  in all: {account.jobs} jobs, about {account.series} series (at most"
        f" {account.max_series}), {_range(account.requests_per_minute)} requests a minute (at most"
        f" {account.max_requests_per_minute:g}); the check took {account.requests_made}"
    )


def _clock(offset: float | None) -> tuple[str, str]:
    """Whether this machine's clock is right enough, and by how much it is not."""
    if not offset:
        return ("not known", "") if offset is None else ("ok", "in step")
    side = "behind" if offset > 0 else "ahead of"
    return _mark(abs(offset) <= MAX_SKEW), f"{abs(offset):g} s {side} the service's"


def _operation(answer: Answer) -> tuple[str, ...]:
    return answer.name, _mark(answer.is_ok), ", ".join(answer.needed_for)


def _problem(problem: Problem, paint: Paint) -> Iterable[str]:
    yield f"{paint(problem.level)}: {problem.where}: {problem.cause}: {problem.text}"
    yield f"  cure: {problem.cure}"


def _mark(is_ok: bool | None) -> str:
    return {True: "ok", False: "failed", None: "not known"}[is_ok]


def _range(requests: Range) -> str:
    least, most = f"{requests.idle:.0f}", f"{requests.busy:.0f}"
    return most if least == most else f"{least} to {most}"


def _columns(rows: Sequence[Sequence[str]], paint: Paint) -> Iterable[str]:
    """Aligned, with the second cell of each row painted where it is a mark."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[1] = paint(row[1]) + " " * (widths[1] - len(row[1]))
        yield ("  " + "  ".join(cells)).rstrip()


def _paint(word: str) -> str:
    code = _COLOURS.get(word)
    return word if code is None else f"\x1b[{code}m{word}\x1b[0m"
