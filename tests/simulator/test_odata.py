"""The filter language, apart from any account."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from exporter.simulator import ticks
from exporter.simulator.filter_language import (
    EQUALITY,
    EVERYTHING,
    ORDERED,
    FilterError,
    Property,
    parse_filter,
)

PROPERTIES = {
    "id": Property("text", EVERYTHING, lambda thing: thing.id),
    "state": Property("name", EQUALITY, lambda thing: thing.state, frozenset({"active", "done"})),
    "made": Property("time", ORDERED, lambda thing: thing.made),
    "info/code": Property("number", ORDERED, lambda thing: thing.code),
    "big": Property("truth", EQUALITY, lambda thing: thing.big),
}
NOON = ticks.from_datetime(datetime(2025, 3, 4, 12, tzinfo=UTC))
THING = SimpleNamespace(id="Job's-1", state="active", made=NOON, code=-3, big=True)
BLANK = SimpleNamespace(id="x", state="done", made=None, code=None, big=False)


@pytest.mark.parametrize(
    ("text", "thing", "blank"),
    [
        ("state eq 'active'", True, False),
        ("state eq 'ACTIVE'", True, False),
        ("state ne 'active'", False, True),
        ("id eq 'job''s-1'", True, False),
        ("id gt 'a'", True, True),
        ("startswith(id, 'JOB')", True, False),
        ("startswith(id,'ob')", False, False),
        ("info/code eq -3", True, False),
        ("info/code ne 0", True, True),
        ("info/code lt 0", True, False),
        ("info/code ge -3 and info/code le -3", True, False),
        ("info/code gt -3", False, False),
        ("big eq true", True, False),
        ("big ne true", False, True),
        ("made ge DateTime'2025-03-04T12:00:00Z'", True, False),
        ("made gt datetime'2025-03-04T12:00:00.0000000Z'", False, False),
        ("made gt DATETIME'2025-03-04T11:59:59.9999999Z'", True, False),
        ("made eq datetime'2025-03-04T14:00:00+02:00'", True, False),
        ("made le datetime'2025-03-04T12:00'", True, False),
        ("made lt DateTime'Tue, 04 Mar 2025 12:00:01 GMT'", True, False),
        ("(state eq 'active') and startswith(id, 'job')", True, False),
        ("state eq 'done' or state eq 'active' and big eq false", False, True),
        ("(state eq 'done' or state eq 'active') and big eq true", True, False),
        ("  state  eq  'active'  ", True, False),
        ("((state eq 'active'))", True, False),
    ],
)
def test_a_filter_takes_what_it_says(text: str, thing: bool, blank: bool) -> None:
    predicate = parse_filter(text, PROPERTIES)
    assert (predicate(THING), predicate(BLANK)) == (thing, blank)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("State eq 'active'", "'State' cannot be used"),
        ("failureInfo/code eq 'x'", "cannot be used"),
        ("state gt 'active'", "'gt' is not supported on property 'state'"),
        ("startswith(state, 'a')", "'startswith' is not supported"),
        ("state eq 'failed'", "'failed' is not a value of property 'state'"),
        ("state eq active", "wrong type"),
        ("state eq 5", "wrong type"),
        ("info/code eq '5'", "wrong type"),
        ("big eq 'true'", "wrong type"),
        ("made gt '2025-03-04T12:00:00Z'", "wrong type"),
        ("made gt datetime'tomorrow'", "not a valid date"),
        ("made gt datetime'2025-13-04T12:00:00Z'", "not a valid date"),
        ("state eq", "Expected a value"),
        ("state", "Expected an operator"),
        ("state = 'active'", "Syntax error"),
        ("state EQ 'active'", "Expected an operator"),
        ("state eq 'active' and", "Expected an expression"),
        ("state eq 'active' 'done'", "after the end"),
        ("(state eq 'active'", "Expected ')'"),
        ("state eq 'active')", "after the end"),
        ("not (state eq 'active')", "Expected"),
        ("startswith(id, 5)", "takes a string"),
        ("startswith(id 'x')", "Expected ','"),
        ("endswith(id, 'x')", "Expected an operator"),
        ("state eq 'active", "Syntax error"),
        ("", "Expected an expression"),
    ],
)
def test_what_the_grammar_does_not_have_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(text, PROPERTIES)
    assert reason in str(caught.value)
