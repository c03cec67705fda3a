"""Samples as text lines.

A sample line is the same in the text format 0.0.4 and in OpenMetrics 1.0; only a family's headers
differ. So lines are rendered once and serve both formats.
"""

from __future__ import annotations

import hashlib
import math
import re
from functools import lru_cache

from exporter.exposition.metric import Identity, Labels, Samples

MAX_LABEL = 512
"""Characters of a label value. The service's ids have 64 at most, display names 1,024."""


def header(name: str, type_: str, documentation: str, *, openmetrics: bool) -> bytes:
    """HELP and TYPE of a family. OpenMetrics names a counter without its suffix `_total`."""
    if openmetrics:
        name = name.removesuffix("_total")
    return f"# HELP {name} {documentation}\n# TYPE {name} {type_}\n".encode()


class Family:
    """Renders the lines of one family. `label_names`: those behind the labels of the identity."""

    def __init__(self, name: str, type_: str, label_names: tuple[str, ...] = ()) -> None:
        self._name = name
        self._is_histogram = type_ == "histogram"
        self._label_names = label_names
        # Jobs on a pool have the same labels: without this, rendering takes twice as long.
        self._parts_of = lru_cache(maxsize=10_000)(self._parts)

    def render(self, identity: str, samples: Samples) -> bytes:
        """The lines for one object.

        `identity`: the text of the labels that identify the object. Samples without a value are
        left out. ValueError where a sample has more or fewer label values than there are names.
        """
        lines = []
        for labels, value in samples:
            if value is None:
                continue
            name, own = self._parts_of(labels)
            # Nearly all values are counts, and for those format_value would give the same text.
            number = (
                value if type(value) is int and -_LARGE < value < _LARGE else format_value(value)
            )
            given = f"{identity}{own}" if identity else own[1:]
            lines.append(f"{name}{{{given}}} {number}\n" if given else f"{name} {number}\n")
        return "".join(lines).encode()

    def _parts(self, labels: Labels) -> tuple[str, str]:
        """The name of a sample, and its own labels as they stand behind those of the identity."""
        name, names, values = self._name, self._label_names, labels
        if self._is_histogram:
            *own, suffix, bound = labels
            name += suffix
            names, values = ((*names, "le"), (*own, bound)) if bound else (names, tuple(own))
        pairs = zip(names, values, strict=True)
        return name, "".join([f',{label}="{escape(value)}"' for label, value in pairs])


def identity_text(identity: Identity) -> str:
    """The labels of an identity as they stand in a line."""
    return ",".join([f'{name}="{escape(value)}"' for name, value in identity])


# A NUL is legal, but Prometheus takes the exposition to end there.
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"', "\0": "\ufffd"})
_NEEDS_NO_ESCAPE = re.compile(r"[ !#-\[\]-~]*").fullmatch


def escape(value: str) -> str:
    """A label value between its quotes. Any text is legal there but a lone surrogate.

    A value that is too long is cut and ends in a digest of the whole, so that two stay two.
    """
    if len(value) > MAX_LABEL:
        digest = hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()[:16]
        return escape(f"{value[: MAX_LABEL - 20]}... {digest}")
    if _NEEDS_NO_ESCAPE(value):
        return value
    return value.encode("utf-8", "replace").decode().translate(_ESCAPES)


_LARGE = 2**53
"""Whole numbers between this and its negative are written as they are."""


def format_value(value: float) -> str:
    """A sample's value; whole numbers without a point."""
    if isinstance(value, int):
        # Prometheus refuses a number that no double can hold, and the whole exposition with it.
        if abs(value) < 2**1023:
            return str(int(value))
        value = math.inf if value > 0 else -math.inf
    if math.isfinite(value):
        return repr(value)
    if math.isnan(value):
        return "NaN"
    return "+Inf" if value > 0 else "-Inf"
