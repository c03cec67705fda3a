"""State files as earlier versions wrote them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

_TO_VERSION_4 = """
DROP TABLE job_group; DROP TABLE recent; DROP TABLE spelling; DROP TABLE written;
ALTER TABLE account DROP COLUMN listed_at;
CREATE TABLE shard (number, count);
PRAGMA user_version = 4;
"""


def make_version_4(path: Path, shard: tuple[int, int] | None = None) -> None:
    """Make a file one of version 4. `shard`: who wrote it, as (number, count)."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(_TO_VERSION_4)
        if shard is not None:
            connection.execute("INSERT INTO shard VALUES (?, ?)", shard)
