"""Samples to text, text to bytes: escaping, both formats, gzip, and rendering once per change."""

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

from exporter.exposition.body import Exposition, Format, gzip_parts
from exporter.exposition.metric import (
    NO_SAMPLES,
    Identity,
    Metric,
    Samples,
    Table,
    only,
    paired,
    state_set,
)
from exporter.exposition.text import MAX_LABEL, Renderer, escape, format_value, write

Values = dict[tuple[str, ...], float]


def gauge(name: str, *labels: str) -> Metric[Values]:
    return Metric(name, "gauge", "Some help", "Some_Operation field", labels, apart)


def apart(values: Values) -> Samples:
    return paired(values.items())


THINGS = Table(("account",), (gauge("things", "kind"), gauge("more_things", "kind")))


def account(name: str) -> Identity:
    return (("account", name),)


def text_of(exposition: Exposition, format_: Format = Format.TEXT) -> str:
    return exposition.body(format_).plain.decode()


def test_a_snapshot_becomes_the_lines_of_its_families() -> None:
    exposition = Exposition({"things": THINGS})
    exposition.put("things", account("b"), {("x",): 2})
    exposition.put("things", account("a"), {("x",): 1, ("y",): 0.5})
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
    counter = Metric[Values]("events_total", "counter", "H", "S", (), apart)
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


def test_unchanged_state_is_the_same_bytes_object_and_the_order_of_arrival_does_not_show() -> None:
    one, other = Exposition({"things": THINGS}), Exposition({"things": THINGS})
    for name in ("a", "b", "c"):
        one.put("things", account(name), {("x",): 1})
    for name in ("c", "a", "b"):
        other.put("things", account(name), {("x",): 1})
    before = one.body(Format.TEXT)
    one.put("things", account("a"), {("x",): 1})
    assert one.body(Format.TEXT) is before
    assert other.body(Format.TEXT).plain == before.plain
    one.put("things", account("a"), {("x",): 2})
    assert one.body(Format.TEXT) is not before


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
        with pytest.raises(TypeError, match="arguments"):
            Renderer(THINGS).lines(account("a"), {values: 1})


def test_a_row_with_a_value_too_many_or_too_few_is_an_error_and_moves_no_other() -> None:
    rows = [
        Metric[object](name, "gauge", "H", "S", ("kind",), lambda _, given=given: given)
        for name, given in (("few", ((("x",), ("y",)), (1,))), ("many", ((("x",),), (2, 3))))
    ]
    with pytest.raises(ValueError, match="few: 2 labels, 1 values"):
        Renderer(Table((), tuple(rows))).lines((), None)
    with pytest.raises(ValueError, match="many: 1 labels, 2 values"):
        Renderer(Table((), tuple(rows[1:]))).lines((), None)


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


@given(st.lists(st.tuples(TEXT, st.dictionaries(st.tuples(TEXT), st.floats() | st.integers()))))
def test_many_are_written_as_each_of_them_is(many: list[tuple[str, Values]]) -> None:
    renderer = Renderer(THINGS)
    unwritten = [renderer.lines(account(name), values) for name, values in many]
    if unwritten:
        assert write(unwritten) == [text for each in unwritten for text in write([each])]
    for each, (_, values) in zip(unwritten, many, strict=True):
        assert [text.count(b"\n") for text in write([each])] == [len(values)] * 2


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
    row = Metric[object]("things", "gauge", "H", "S", (), lambda _: only(value))
    assert write([Renderer(Table((), (row,))).lines((), None)]) == [f"things {text}\n".encode()]


def test_a_state_set_has_every_state_and_what_it_does_not_know() -> None:
    assert state_set(("a", "b"), "b") == ((("a",), ("b",)), (0, 1))
    assert state_set(("a", "b"), "unknown") == ((("a",), ("b",), ("unknown",)), (0, 0, 1))
    assert state_set(("a", "b"), None) == NO_SAMPLES


@given(st.binary(max_size=2000), st.integers(min_value=0, max_value=300))
def test_a_gzip_body_is_one_valid_stream_of_both_parts(rest: bytes, count: int) -> None:
    exposition = Exposition({"things": THINGS})
    for number in range(count):
        exposition.put("things", account(str(number)), {("x",): number})
    for format_ in Format:
        state = exposition.body(format_)
        for _ in range(3):
            assert gzip.decompress(b"".join(gzip_parts(state, rest))) == state.plain + rest


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
    put("a", "x", "y")  # what is shown is shown as it is
    assert exposition.body(Format.TEXT).series == 8
    for job in ("a", "b"):
        exposition.remove("things", (("account", "acc"), ("job_id", job)))
    put("c", "x")
    assert 'job_id="c"' in text_of(exposition)
    exposition.put("things", (("account", "other"), ("job_id", "c")), {("x",): 1})
    assert exposition.body(Format.TEXT).series == 4
