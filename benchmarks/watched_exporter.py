"""The exporter as its command runs it, and a list of how late its polls began.

Its metric shows the latest poll alone; and to fetch 50 MB of metrics each second would itself make
polls late. The file that WATCHED_LAGS names gets a line a second: the largest lag in it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from exporter.__main__ import main
from exporter.service import telemetry

LAGS_VARIABLE = "WATCHED_LAGS"

_lags: list[float] = [0.0]


class Watched(telemetry.AccountTelemetry):
    """Notes what it is told."""

    def poll_started(self, lag: float) -> None:
        """A poll started `lag` seconds late."""
        super().poll_started(lag)
        _lags[0] = max(_lags[0], lag)


def write(file: Path) -> None:
    """Write the largest lag of each second, for as long as the process lives."""
    with file.open("w", buffering=1) as lines:
        while True:
            time.sleep(1.0)
            lines.write(f"{_lags[0]}\n")
            _lags[0] = 0.0


if __name__ == "__main__":
    telemetry.AccountTelemetry = Watched  # type: ignore[misc]
    file = Path(os.environ[LAGS_VARIABLE])
    threading.Thread(target=write, args=(file,), daemon=True).start()
    sys.exit(main())
