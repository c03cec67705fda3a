"""A state file in the hands of another shard than the one that wrote it."""

from __future__ import annotations

import json
import logging
import sqlite3

from exporter.config.shard import WHOLE, Shard

log = logging.getLogger(__name__)


def reshard(connection: sqlite3.Connection, shard: Shard) -> None:
    """Forget the jobs that are not this shard's, and note whose the file is. sqlite3.Error.

    Jobs that came from other shards have been counted there: none of those that are there now may
    be taken for new, so the watch over the accounts begins anew. Totals of groups and accounts
    stay: what this shard counted happened.
    """
    with connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS shard (number INTEGER NOT NULL, count INTEGER NOT NULL)"
        )
        found = connection.execute("SELECT number, count FROM shard").fetchone()
        before = Shard(*found) if found else WHOLE
        if before == shard:
            return
        jobs = connection.execute("SELECT account, job_id FROM job").fetchall()
        moved = [(account, job_id) for account, job_id in jobs if not shard.owns(account, job_id)]
        for table in ("job", "state", "record"):
            # Names of tables are ours.
            query = f"DELETE FROM {table} WHERE account = ? AND job_id = ?"  # noqa: S608
            connection.executemany(query, moved)
        connection.executemany(
            "DELETE FROM counter WHERE account = ? AND owner = ?",
            ((account, json.dumps(["job_id", job_id])) for account, job_id in moved),
        )
        connection.execute("DELETE FROM account")
        connection.execute("DELETE FROM shard")
        connection.execute("INSERT INTO shard VALUES (?, ?)", (shard.index, shard.count))
    if jobs:
        log.info(
            "the state file is from shard %s, this is %s: %d of its %d jobs are left to others",
            before,
            shard,
            len(moved),
            len(jobs),
        )
