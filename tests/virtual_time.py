"""An event loop whose clock jumps to the next timer: hours pass in no time, in a fixed order."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Never waits: where the loop would, its clock moves on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing is left that could happen"
            self.skipped += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._own_selector = _Selector()
        super().__init__(self._own_selector)

    def time(self) -> float:
        return self._own_selector.skipped

    def run_in_executor(self, _: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Call it at once: in a thread it would take real time, and its end no fixed place."""
        result = self.create_future()
        try:
            result.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - the caller gets it
            result.set_exception(error)
        return result


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time, from second 0 on. No sockets: they would take real time."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)
