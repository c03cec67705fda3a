"""The exporter as its command runs it, with a timer on its event loop that notes how late it is.

The file that WATCHED_STALLS names gets a line a second: the longest delay in it, in seconds. The
timer fires each 10 ms, which takes less than 1 % of a core.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path

from exporter.__main__ import main

STALLS_VARIABLE = "WATCHED_STALLS"
EACH = 0.01


class Policy(asyncio.DefaultEventLoopPolicy):
    """Makes loops with such a timer."""

    longest = 0.0

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """A loop whose timer starts with it."""
        loop = super().new_event_loop()

        def fire(due: float) -> None:
            now = loop.time()
            self.longest = max(self.longest, now - due)
            loop.call_at(now + EACH, fire, now + EACH)

        loop.call_soon(lambda: fire(loop.time()))
        return loop

    def write(self, file: Path) -> None:
        """Write the longest delay of each second, for as long as the process lives."""
        with file.open("w", buffering=1) as lines:
            while True:
                time.sleep(1.0)
                lines.write(f"{self.longest}\n")
                self.longest = 0.0


if __name__ == "__main__":
    policy = Policy()
    asyncio.set_event_loop_policy(policy)
    file = Path(os.environ[STALLS_VARIABLE])
    threading.Thread(target=policy.write, args=(file,), daemon=True).start()
    sys.exit(main())
