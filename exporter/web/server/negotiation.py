"""Content negotiation of /metrics: which format, and whether gzip (RFC 9110, section 12)."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.exposition.body import Format

_ESCAPING = frozenset({"allow-utf-8", "underscores", "dots", "values"})

# What a format answers to, as (type, subtype, versions); "" stands for no version given.
_OFFERS = (
    (Format.OPENMETRICS, "application", "openmetrics-text", ("1.0.0", "")),
    (Format.TEXT, "text", "plain", ("0.0.4", "")),
)


@dataclass(frozen=True)
class _Range:
    """One media range of an Accept header."""

    type: str
    subtype: str
    parameters: dict[str, str]
    q: float


def choose_format(accept: str) -> tuple[Format, str]:
    """The format that a client likes best of those that are served, and its content type.

    Text 0.0.4 where it likes none: a scraper with an odd header is better served than refused.
    The names of our metrics need no escaping, so whatever scheme is asked for is what it gets.
    """
    ranges = _parse(accept)
    best: tuple[tuple[float, int, int], Format, str] | None = None
    for format_, type_, subtype, versions in _OFFERS:
        matches = [
            (specificity, -position, range_)
            for position, range_ in enumerate(ranges)
            if (specificity := _specificity(range_, type_, subtype, versions)) is not None
        ]
        if not matches:
            continue
        # The most specific range speaks for a format: "*/*" does not revive what has q=0.
        specificity, order, range_ = max(matches, key=lambda match: match[:2])
        rank = (range_.q, specificity, order)
        if range_.q > 0 and (best is None or rank > best[0]):
            best = rank, format_, range_.parameters.get("escaping", "")
    if best is None:
        return Format.TEXT, Format.TEXT.value
    _, format_, escaping = best
    echoed = format_ is Format.OPENMETRICS and escaping in _ESCAPING
    return format_, format_.value + (f"; escaping={escaping}" if echoed else "")


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a client takes gzip."""
    quality = {range_.type: range_.q for range_ in _parse(accept_encoding)}
    return quality.get("gzip", quality.get("x-gzip", quality.get("*", 0.0))) > 0


def _specificity(range_: _Range, type_: str, subtype: str, versions: tuple[str, ...]) -> int | None:
    if (range_.type, range_.subtype) == (type_, subtype):
        version = range_.parameters.get("version", "")
        return (2 + bool(version)) if version in versions else None
    if (range_.type, range_.subtype) == (type_, "*"):
        return 1
    # A client that takes anything gets what every Prometheus reads.
    return 0 if (range_.type, range_.subtype, subtype) == ("*", "*", "plain") else None


def _parse(header: str) -> list[_Range]:
    ranges = []
    for item in header.split(","):
        name, *rest = (part.strip() for part in item.split(";"))
        pairs = (part.partition("=") for part in rest)
        parameters = {key.strip().lower(): value.strip().strip('"') for key, _, value in pairs}
        type_, _, subtype = name.lower().partition("/")
        ranges.append(_Range(type_, subtype, parameters, _quality(parameters.pop("q", "1"))))
    return ranges


def _quality(text: str) -> float:
    try:
        q = float(text)
    except ValueError:
        return 0.0
    return q if 0 <= q <= 1 else 0.0  # not a number, too, is out of range
