"""Content negotiation of /metrics: which format, and whether gzip (RFC 9110, section 12)."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter

from exporter.exposition.body import Format

_ESCAPING = frozenset({"allow-utf-8", "underscores", "dots", "values"})

_OFFERS = (
    (Format.OPENMETRICS, "application/openmetrics-text", "1.0.0"),
    (Format.TEXT, "text/plain", "0.0.4"),
)
"""A format, its media type and its version."""


@dataclass(frozen=True)
class _Range:
    """One media range of an Accept header, or one coding of Accept-Encoding."""

    name: str
    parameters: dict[str, str]
    q: float


def choose_format(accept: str) -> tuple[Format, str]:
    """The served format that a client prefers, and its content type.

    Text 0.0.4 where it accepts none: a scraper with an odd header is served, not refused.
    The metric names need no escaping, so any escaping scheme is granted.
    """
    found = []
    for format_, name, version in _OFFERS:
        matches = [
            (specificity, -position, range_)
            for position, range_ in enumerate(_parse(accept))
            if (specificity := _specificity(range_, name, version)) is not None
        ]
        if matches:
            # The most specific range decides: "*/*" does not re-enable a format with q=0.
            specificity, order, range_ = max(matches, key=itemgetter(0, 1))
            found.append(((range_.q, specificity, order), format_, range_))
    best = max(found, key=itemgetter(0), default=None)
    if best is None or not best[2].q:
        return Format.TEXT, Format.TEXT.value
    _, format_, range_ = best
    escaping = range_.parameters.get("escaping", "")
    echoed = format_ is Format.OPENMETRICS and escaping in _ESCAPING
    return format_, format_.value + (f"; escaping={escaping}" if echoed else "")


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a client takes gzip."""
    quality = {range_.name: range_.q for range_ in _parse(accept_encoding)}
    return quality.get("gzip", quality.get("x-gzip", quality.get("*", 0.0))) > 0


def _specificity(range_: _Range, name: str, version: str) -> int | None:
    """How exactly a range names a media type; None where it does not."""
    if range_.name == name:
        given = range_.parameters.get("version", "")
        return 2 + bool(given) if given in (version, "") else None
    if range_.name == f"{name.partition('/')[0]}/*":
        return 1
    # A client that accepts anything gets the format that every Prometheus reads.
    return 0 if range_.name == "*/*" and name == "text/plain" else None


def _parse(header: str) -> list[_Range]:
    ranges = []
    for item in header.split(","):
        name, *rest = (part.strip() for part in item.split(";"))
        pairs = (part.partition("=") for part in rest)
        parameters = {key.strip().lower(): value.strip().strip('"') for key, _, value in pairs}
        ranges.append(_Range(name.lower(), parameters, _quality(parameters.pop("q", "1"))))
    return ranges


def _quality(text: str) -> float:
    try:
        q = float(text)
    except ValueError:
        return 0.0
    return q if 0 <= q <= 1 else 0.0  # NaN is out of range too
