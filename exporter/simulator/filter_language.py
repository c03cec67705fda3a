"""The language of `$filter` as the service has it: comparisons, startswith, and, or, parentheses.

Property names are case-sensitive, string values are not. What the grammar or the operation's
table of properties does not allow raises FilterError, whose text is the Reason of a 400.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import reduce
from types import MappingProxyType
from typing import Any

from exporter.simulator import ticks

Predicate = Callable[[Any], bool]
Value = str | int | bool | None

EQUALITY = frozenset({"eq", "ne"})
ORDERED = frozenset({"eq", "ne", "ge", "gt", "le", "lt"})
EVERYTHING = ORDERED | {"startswith"}
EQ_ONLY = frozenset({"eq"})


MAX_TOKENS = 200
"""Parts of a filter: it may nest, and recursion ends somewhere."""


class FilterError(Exception):
    """The filter is not one that the operation understands."""


@dataclass(frozen=True)
class Property:
    """A property that may stand in a filter.

    `kind`: `text`, `name` (one of `names`), `time` (ticks), `number` or `truth`. `read` gives the
    entity's value, None where it has none: then only `ne` holds.
    """

    kind: str
    operators: frozenset[str]
    read: Callable[[Any], Value]
    names: frozenset[str] = frozenset()


_TOKEN = re.compile(
    r"""\s*(?:
      (?P<moment>datetime'(?P<instant>[^']*)')
    | (?P<text>'(?:[^']|'')*')
    | (?P<number>-?\d+(?![\w.]))
    | (?P<word>[A-Za-z_][A-Za-z0-9_/]*)
    | (?P<mark>[(),])
    )""",
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def parse_filter(text: str, properties: Mapping[str, Property]) -> Predicate:
    """The predicate that the filter states over the entities of these properties."""
    tokens = _tokens(text)
    if len(tokens) > MAX_TOKENS:
        raise FilterError(f"The expression has more than {MAX_TOKENS} parts")
    parser = _Parser(tokens, properties)
    predicate = parser.alternatives()
    if parser.left:
        raise FilterError(f"Unexpected '{parser.left.text}' after the end of the expression")
    return predicate


def compares_times(text: str) -> bool:
    """Whether a filter, which is known to be valid, has a time in it."""
    return any(token.kind == "time" for token in _tokens(text))


def _tokens(text: str) -> list[_Token]:
    found, position, text = [], 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise FilterError(f"Syntax error at position {position}")
        kind = match.lastgroup or ""
        if match["moment"] is not None:
            found.append(_Token("time", match["instant"]))
        else:
            found.append(_Token(kind, match[kind]))
        position = match.end()
    return found


class _Parser:
    """Recursive descent; `and` binds closer than `or`."""

    def __init__(self, tokens: list[_Token], properties: Mapping[str, Property]) -> None:
        self._tokens = tokens
        self._at = 0
        self._properties = properties

    @property
    def left(self) -> _Token | None:
        """The token to come, None at the end."""
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def alternatives(self) -> Predicate:
        parts = [self._together()]
        while self._take_word("or"):
            parts.append(self._together())
        return reduce(_either, parts)

    def _together(self) -> Predicate:
        parts = [self._term()]
        while self._take_word("and"):
            parts.append(self._term())
        return reduce(_both, parts)

    def _term(self) -> Predicate:
        token = self._next("an expression")
        if token.text == "(" and token.kind == "mark":
            inner = self.alternatives()
            self._expect(")")
            return inner
        if token.kind != "word":
            raise FilterError(f"Expected a property but found '{token.text}'")
        if token.text == "startswith" and self.left is not None and self.left.text == "(":
            return self._starts_with()
        return self._comparison(token.text)

    def _starts_with(self) -> Predicate:
        self._expect("(")
        name = self._next("a property").text
        wanted = self._property(name, "startswith")
        self._expect(",")
        literal = self._next("a string")
        if literal.kind != "text":
            raise FilterError("startswith takes a string literal")
        self._expect(")")
        start, read = _unquoted(literal.text).lower(), wanted.read
        return lambda entity: str(read(entity) or "").lower().startswith(start)

    def _comparison(self, name: str) -> Predicate:
        token = self._next("an operator")
        if token.kind != "word" or token.text not in ORDERED:
            raise FilterError(f"Expected an operator after '{name}' but found '{token.text}'")
        wanted = self._property(name, token.text)
        value = _literal(name, wanted, self._next("a value"))
        return _compare(wanted, token.text, value)

    def _property(self, name: str, use: str) -> Property:
        wanted = self._properties.get(name)
        if wanted is None:
            raise FilterError(f"The property '{name}' cannot be used in a filter here")
        if use not in wanted.operators:
            raise FilterError(f"The operator '{use}' is not supported on property '{name}'")
        return wanted

    def _take_word(self, word: str) -> bool:
        if self.left is not None and self.left.kind == "word" and self.left.text == word:
            self._at += 1
            return True
        return False

    def _expect(self, mark: str) -> None:
        if self._next(f"'{mark}'").text != mark:
            raise FilterError(f"Expected '{mark}'")

    def _next(self, wanted: str) -> _Token:
        token = self.left
        if token is None:
            raise FilterError(f"Expected {wanted} but the filter ends")
        self._at += 1
        return token


# In pairs, for a generator over the parts would take several times as long for each entity.


def _either(first: Predicate, second: Predicate) -> Predicate:
    return lambda entity: first(entity) or second(entity)


def _both(first: Predicate, second: Predicate) -> Predicate:
    return lambda entity: first(entity) and second(entity)


def _unquoted(literal: str) -> str:
    return literal[1:-1].replace("''", "'")


def _literal(name: str, wanted: Property, token: _Token) -> Value:
    """The value written in the filter, in the form that the property's own values have."""
    if wanted.kind in {"text", "name"} and token.kind == "text":
        value = _unquoted(token.text).lower()
        if wanted.kind == "name" and value not in wanted.names:
            raise FilterError(f"'{_unquoted(token.text)}' is not a value of property '{name}'")
        return value
    if wanted.kind == "number" and token.kind == "number" and len(token.text) <= 20:
        return int(token.text)
    if wanted.kind == "truth" and token.kind == "word" and token.text in {"true", "false"}:
        return token.text == "true"
    if wanted.kind == "time" and token.kind == "time":
        return _instant(token.text)
    raise FilterError(f"'{token.text}' has the wrong type for property '{name}'")


_ISO = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,7}))?(Z|[+-]\d\d:\d\d)?", re.IGNORECASE
)


def _instant(text: str) -> int:
    """Ticks of an ISO 8601 or RFC 1123 date; without a zone it is taken as UTC."""
    try:
        match = _ISO.fullmatch(text)
        if match is None:
            return ticks.from_datetime(parsedate_to_datetime(text).astimezone(UTC))
        whole, fraction, zone = match.groups()
        offset = "+00:00" if zone is None or zone in "Zz" else zone
        moment = datetime.fromisoformat(whole + offset)
        return ticks.from_datetime(moment) + int((fraction or "").ljust(7, "0"))
    except (ValueError, OverflowError):
        raise FilterError(f"'{text}' is not a valid date and time") from None


def _compare(wanted: Property, name: str, value: Value) -> Predicate:
    read = wanted.read
    if wanted.kind in {"text", "name"}:
        original = read

        def read(entity: Any) -> Value:
            found = original(entity)
            return found.lower() if isinstance(found, str) else found

    if name == "eq":
        return lambda entity: read(entity) == value
    if name == "ne":
        return lambda entity: read(entity) != value
    return _ordered(read, name, value)


_TESTS: Mapping[str, Callable[[Any, Any], bool]] = MappingProxyType(
    {"gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le}
)


def _ordered(read: Callable[[Any], Value], name: str, value: Any) -> Predicate:
    holds = _TESTS[name]

    def test(entity: Any) -> bool:
        found = read(entity)
        return found is not None and holds(found, value)

    return test
