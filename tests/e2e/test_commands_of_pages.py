"""What pages say to type is typed, and shows what they say that it shows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.pages_run import STAGES, Place, Step, run_page, shown

pytestmark = pytest.mark.full


@pytest.mark.parametrize("page", STAGES)
async def test_the_commands_of_a_page_show_what_it_says(page: str, tmp_path: Path) -> None:
    async with asyncio.timeout(500):
        await run_page(page, tmp_path)


@pytest.mark.parametrize(
    "step", [Step("false\n", ()), Step("echo one\n", ("two",))], ids=["fails", "shows another"]
)
async def test_a_command_that_does_otherwise_is_found(step: Step, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="shows not"):
        await shown(Place(tmp_path, {}, {}), step, patience=0.0)
