"""A short run of each target: what is kept, and what is a few mutations away from it."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import mutate
from tests.fuzz.targets import CORPUS, TARGETS, corpus

KEPT = [(name, file.name) for name in TARGETS for file in sorted((CORPUS / name).iterdir())]


@pytest.mark.parametrize(("name", "file"), KEPT, ids=lambda value: value)
def test_what_is_kept_does_no_harm(name: str, file: str) -> None:
    TARGETS[name]((CORPUS / name / file).read_bytes())


@pytest.mark.hypothesis
@pytest.mark.parametrize("name", TARGETS)
def test_what_is_nearly_valid_does_no_harm(name: str) -> None:
    kept = [data for data in corpus(name) if len(data) < 10_000]

    @settings(suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(kept), st.randoms(use_true_random=False))
    @example(b"", Random(0))
    def nearly(data: bytes, random: Random) -> None:
        TARGETS[name](mutate(data, random))

    nearly()


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary() | st.text().map(str.encode))
def test_what_is_anything_does_no_harm(name: str, data: bytes) -> None:
    TARGETS[name](data)
