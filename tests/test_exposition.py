"""Samples to text, text to bytes: escaping, both formats, gzip, and one rendering per change."""

from __future__ import annotations

import gzip
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.exposition.body import Exposition, Format
from exporter.exposition.metric import Identity, Metric, Samples, Table, only, state_set
from exporter.exposition.text import MAX_LABEL, Family, escape, format_value

Values = dict[tuple[str, ...], float]


def gauge(name: str, *labels: str) -> Metric[Values]:
    return Metric(name, "gauge", "Some help", "Some_Operation field", labels, samples_of)


def samples_of(values: Values) -> Samples:
    return values.items()


THINGS = Table(("account",), (gauge("things", "kind"), gauge("more_things", "kind")))


def account(name: str) -> Identity:
    return (("account", name),)


def text_of(exposition: Exposition, format_: Format = Format.TEXT) -> str:
    return exposition.body(format_).plain.decode()


def test_a_snapshot_becomes_the_lines_of_its_families() -> None:
    exposition = Exposition({"things": THINGS})
    exposition.put("things", account("a"), {("x",): 1, ("y",): 0.5})
    exposition.put("things", account("b"), {("x",): 2})
    help_ = "Some help. Source: Some_Operation field; polled, not fetched on scrape."
    assert text_of(exposition) == (
        f"# HELP things {help_}\n"
        "# TYPE things gauge\n"
        'things{account="a",kind="x"} 1\n'
        'things{account="a",kind="y"} 0.5\n'
        'things{account="b",kind="x"} 2\n'
        f"# HELP more_things {help_}\n"
        "# TYPE more_things gauge\n"
        'more_things{account="a",kind="x"} 1\n'
        'more_things{account="a",kind="y"} 0.5\n'
        'more_things{account="b",kind="x"} 2\n'
    )
    assert exposition.body(Format.TEXT).series == 6


def test_a_counter_is_named_as_each_format_wants_it() -> None:
    counter = Metric[Values]("events_total", "counter", "H", "S", (), samples_of)
    exposition = Exposition({"events": Table((), (counter,))})
    exposition.put("events", (), {(): 3})
    assert "# TYPE events_total counter\nevents_total 3\n" in text_of(exposition)
    assert "# TYPE events counter\nevents_total 3\n" in text_of(exposition, Format.OPENMETRICS)


def test_what_is_removed_is_gone_and_a_family_without_samples_has_no_header() -> None:
    exposition = Exposition({"things": THINGS})
    exposition.put("things", account("a"), {("x",): 1})
    exposition.remove("things", account("a"))
    exposition.remove("things", account("never there"))
    assert text_of(exposition) == ""
    assert exposition.body(Format.TEXT).series == 0


def test_unchanged_state_is_the_same_body_and_a_change_is_another() -> None:
    exposition = Exposition({"things": THINGS})
    for name in ("a", "b", "c"):
        exposition.put("things", account(name), {("x",): 1})
    before = exposition.body(Format.TEXT)
    _, deflated, *_ = before.gzip(b"")
    exposition.put("things", account("a"), {("x",): 1})
    assert exposition.body(Format.TEXT) is before
    assert before.gzip(b"more")[1] is deflated
    exposition.put("things", account("a"), {("x",): 2})
    assert exposition.body(Format.TEXT) is not before
    assert before.gzip(b"")[1] is deflated  # a client that still takes it gets what it was


def test_a_body_is_the_state_of_one_moment_though_it_is_joined_later() -> None:
    exposition = Exposition({"things": THINGS})
    exposition.put("things", account("a"), {("x",): 1})
    body = exposition.body(Format.TEXT)
    exposition.put("things", account("a"), {("x",): 2})
    exposition.put("things", account("b"), {("x",): 2})
    text = body.plain
    assert b'account="a",kind="x"} 1' in text
    assert b'account="b"' not in text
    assert gzip.decompress(b"".join(body.gzip(b""))) == text


def test_a_value_that_is_not_known_has_no_series() -> None:
    row = Metric[object](
        "things", "gauge", "H", "S", ("kind",), lambda _: [(("x",), None), (("y",), 0)]
    )
    exposition = Exposition({"things": Table((), (row,))})
    exposition.put("things", (), None)
    assert text_of(exposition).endswith('# TYPE things gauge\nthings{kind="y"} 0\n')


def test_an_account_that_is_removed_takes_no_other_with_it() -> None:
    exposition = Exposition({"things": THINGS})
    for name in ("a", "ab", 'a",job_id="b'):
        exposition.put("things", account(name), {("x",): 1})
        exposition.put("things", (*account(name), ("job_id", "1")), {("x",): 1})
    exposition.remove_account("a")
    assert exposition.series("a") == 0
    assert exposition.series("ab") == 4
    assert {
        sample.labels["account"]
        for family in parse_text(text_of(exposition))
        for sample in family.samples
    } == {"ab", 'a",job_id="b'}


def test_only_what_changed_is_rendered_again() -> None:
    rendered: list[float] = []

    def samples(value: float) -> Samples:
        rendered.append(value)
        return only(value)

    row = Metric[float]("things", "gauge", "H", "S", (), samples)
    exposition = Exposition({"things": Table(("job_id",), (row,))})
    for number in range(10):
        exposition.put("things", (("job_id", str(number)),), number)
    for format_ in Format:
        exposition.body(format_)
    exposition.put("things", account("3"), 33)
    for format_ in Format:
        exposition.body(format_)
        exposition.body(format_)
    assert rendered == [*range(10), 33]


def test_label_values_too_many_or_too_few_are_an_error() -> None:
    for values in ((), ("a", "b")):
        with pytest.raises(ValueError, match="zip"):
            Exposition({"things": THINGS}).put("things", account("a"), {values: 1})


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=99)


@given(st.dictionaries(st.tuples(TEXT), st.floats(), min_size=1), TEXT)
def test_any_text_and_any_number_survive_both_formats(values: Values, name: str) -> None:
    row = gauge("things", "kind")
    exposition = Exposition({"things": Table(("account",), (row,))})
    exposition.put("things", account(name), values)
    for text, parse in (
        (text_of(exposition), parse_text),
        (text_of(exposition, Format.OPENMETRICS) + "# EOF\n", parse_openmetrics),
    ):
        (family,) = parse(text)  # type: ignore[operator]
        read = {(sample.labels["kind"],): sample.value for sample in family.samples}
        assert {sample.labels["account"] for sample in family.samples} == {name}
        assert read.keys() == values.keys()
        assert all(
            read[key] == value or (math.isnan(read[key]) and math.isnan(value))
            for key, value in values.items()
        )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ('a"b', 'a\\"b'),
        ("a\nb", "a\\nb"),
        ("a\\n", "a\\\\n"),
        ("\ud800", "?"),
        ("a\0b", "a\ufffdb"),
    ],
)
def test_label_values_are_escaped(value: str, text: str) -> None:
    assert escape(value) == text


def test_a_label_value_without_end_is_cut_and_stays_another_than_others() -> None:
    one, other = escape("\n" * 100_000 + "1"), escape("\n" * 100_000 + "2")
    assert one != other
    assert len(one) == len(other) <= 2 * MAX_LABEL
    assert escape("x" * MAX_LABEL) == "x" * MAX_LABEL


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10**308, str(10**308) if 10**308 < 2**1023 else "+Inf"),
        (10**400, "+Inf"),
        (-(10**400), "-Inf"),
        (0, "0"),
        (True, "1"),
        (2**63, "9223372036854775808"),
        (0.1, "0.1"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
        (1756939281.121862, "1756939281.121862"),
    ],
)
def test_numbers_are_written_exactly(value: float, text: str) -> None:
    assert format_value(value) == text
    assert Family("things", "gauge").render("", only(value)) == f"things {text}\n".encode()


def test_a_state_set_has_every_state_and_what_it_does_not_know() -> None:
    assert state_set(("a", "b"), "b") == [(("a",), 0), (("b",), 1)]
    assert state_set(("a", "b"), "unknown") == [(("a",), 0), (("b",), 0), (("unknown",), 1)]
    assert state_set(("a", "b"), None) == []


@given(st.binary(max_size=2000), st.integers(min_value=0, max_value=300))
def test_a_gzip_body_is_one_valid_stream_of_both_parts(rest: bytes, count: int) -> None:
    exposition = Exposition({"things": THINGS})
    for number in range(count):
        exposition.put("things", account(str(number)), {("x",): number})
    for format_ in Format:
        state = exposition.body(format_)
        for _ in range(3):
            assert gzip.decompress(b"".join(state.gzip(rest))) == state.plain + rest


def test_a_limit_keeps_out_what_is_new_and_lets_it_in_when_there_is_room() -> None:
    dropped: list[tuple[str, int]] = []
    exposition = Exposition(
        {"things": THINGS}, limits={"acc": 6}, on_drop=lambda *drop: dropped.append(drop)
    )

    def put(job: str, *kinds: str) -> None:
        identity = (("account", "acc"), ("job_id", job))
        exposition.put("things", identity, dict.fromkeys(((kind,) for kind in kinds), 1))

    put("a", "x")
    put("b", "x", "y")
    put("c", "x")
    put("c", "x")
    assert dropped == [("acc", 2)]  # said once
    assert 'job_id="c"' not in text_of(exposition)
    put("a", "x", "y")  # what grows much is left out as well
    assert exposition.body(Format.TEXT).series == 4
    for job in ("a", "b"):
        exposition.remove("things", (("account", "acc"), ("job_id", job)))
    put("c", "x")
    assert 'job_id="c"' in text_of(exposition)
    exposition.put("things", (("account", "other"), ("job_id", "c")), {("x",): 1})
    assert exposition.body(Format.TEXT).series == 4
