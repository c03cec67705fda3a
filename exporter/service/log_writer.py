"""Writes log lines in a thread of its own: nobody who logs waits for one who reads the log."""

from __future__ import annotations

import logging
import os
import queue
import select
import threading
import time

MAX_LINES = 2000
"""Lines that wait to be written; more are dropped, and counted."""

LAST_LINES = 1.0
"""Seconds at the end of the process in which what waits is still written."""


class BackgroundHandler(logging.Handler):
    """Writes to a file descriptor. Where nobody reads, lines are dropped and nothing waits."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.dropped = 0
        self._said = 0
        self._descriptor = descriptor
        self._lines: queue.Queue[str] = queue.Queue(MAX_LINES)
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line to the thread."""
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - to log is no reason to fail
            line = self._warning(f"a line of {record.name} cannot be written: {error!r}")
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def flush(self) -> None:
        """Wait until all is written, for a second at most."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(
                lambda: not self._lines.unfinished_tasks, LAST_LINES
            )

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            self._write_line(line)
            lost, self._said = self.dropped - self._said, self.dropped
            if lost:
                text = f"{lost} log lines were dropped: nobody read this log for a while"
                self._write_line(self._warning(text))
            self._lines.task_done()

    def _warning(self, text: str) -> str:
        """A line of its own."""
        fields = {"name": __name__, "levelname": "WARNING", "levelno": logging.WARNING, "msg": text}
        return self.format(logging.makeLogRecord(fields))

    def _write_line(self, line: str) -> None:
        # A line may hold a lone surrogate, which no encoding has.
        left = memoryview(f"{line}\n".encode(errors="backslashreplace"))
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # whoever shares the descriptor has made it so
                select.select([], [self._descriptor], [], 1.0)
            except OSError:  # it was closed, or its disk is full
                self.dropped += 1
                time.sleep(0.1)
                return
