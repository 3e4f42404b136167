"""The messages to send and those sent, in SQLite, and their delivery: at least once to every channel."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from taxi_platform.notifications.channels import Channel, Message, advice, open_channels
from taxi_platform.trips.stored_json import FORMAT_VERSION, check_format

PASS_SECONDS = 20
"""No message is started later in one pass: with the time for one message, below the 60 s that Dagster gives a tick."""
FIRST_WAIT, LONGEST_WAIT = 60, 3600
"""Seconds before the second attempt, and at most between attempts."""
GIVE_UP, KEEP = 3 * 86400, 90 * 86400
"""Seconds until giving up, and until a message is deleted."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id TEXT PRIMARY KEY, title TEXT NOT NULL, body TEXT NOT NULL, failure INTEGER NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    message TEXT NOT NULL REFERENCES messages ON DELETE CASCADE, channel TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending', at REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, problem TEXT,
    recipient TEXT, PRIMARY KEY (message, channel));
CREATE INDEX IF NOT EXISTS due ON deliveries (state, at);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value NOT NULL);
"""
"""`recipient` is the channel's fingerprint; null in outboxes of older versions, where `channel` gives the position."""

Log = Callable[[str], None]


@dataclass(frozen=True)
class Delivery:
    """A message still to be sent to one channel; `created` is in seconds since 1970."""

    message: Message
    channel: str
    recipient: str | None
    attempts: int
    created: float


class Outbox:
    """All messages and the state of their deliveries: the SQLite file `notifications/outbox.db` in the home."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "notifications"

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.folder / "outbox.db", timeout=20)) as con:
            con.execute("PRAGMA foreign_keys = ON")
            number = con.execute("PRAGMA user_version").fetchone()[0]  # 0 in outboxes of older versions
            check_format(number, f"{self.folder / 'outbox.db'}", "outbox", "")
            con.executescript(SCHEMA)
            if not number:
                con.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            _upgrade(con)
            with con:
                yield con

    @property
    def delivery_lock(self) -> FileLock:
        """Held while delivering, so that no two processes send the same; the kernel releases a killed process's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "deliver.lock", timeout=0)

    def salt(self) -> bytes:
        """The random key of this outbox's fingerprints."""
        with self._open() as con:
            con.execute("INSERT OR IGNORE INTO facts VALUES ('salt', ?)", (secrets.token_bytes(32),))
            return bytes(con.execute("SELECT value FROM facts WHERE name = 'salt'").fetchone()[0])

    def noted_until(self) -> float | None:
        """The end of the last `deliver_notifications`, in seconds since 1970; None before the first."""
        with self._open() as con:
            row = con.execute("SELECT value FROM facts WHERE name = 'noted_until'").fetchone()
        return float(row[0]) if row else None

    def set_noted_until(self, time: float) -> None:
        with self._open() as con:
            con.execute("INSERT OR REPLACE INTO facts VALUES ('noted_until', ?)", (time,))

    def known(self) -> set[str]:
        """The ids of all messages in the outbox."""
        with self._open() as con:
            return {row[0] for row in con.execute("SELECT id FROM messages")}

    def add(self, message: Message, channels: Sequence[Channel], now: float) -> None:
        """Add a message for these channels (none: only mark the run as seen); a known message is left unchanged."""
        salt = self.salt()
        with self._open() as con:
            row = (message.id, message.title, message.body, message.failure, now)
            if con.execute("INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?, ?)", row).rowcount:
                pending = [(message.id, channel.name, channel.fingerprint(salt), now) for channel in channels]
                con.executemany("INSERT INTO deliveries (message, channel, recipient, at) VALUES (?, ?, ?, ?)", pending)

    def due(self, now: float) -> list[Delivery]:
        """The deliveries due now, the longest waiting first.

        No attempt waits longer than `LONGEST_WAIT`: a time beyond that was written while the clock was ahead.
        """
        query = """SELECT id, title, body, failure, channel, recipient, attempts, created
                   FROM deliveries JOIN messages ON id = message 
                   WHERE state = 'pending' AND (at <= ? OR at > ?) ORDER BY at"""
        with self._open() as con:
            rows = con.execute(query, (now, now + LONGEST_WAIT)).fetchall()
        return [Delivery(Message(row[0], row[1], row[2], bool(row[3])), *row[4:]) for row in rows]

    def waiting(self) -> int:
        """How many deliveries are pending, due or not."""
        with self._open() as con:
            return int(con.execute("SELECT count(*) FROM deliveries WHERE state = 'pending'").fetchone()[0])

    def backlog(self) -> tuple[int, float | None]:
        """How many deliveries are pending, and when the oldest of their messages was added, in seconds since 1970.

        Only reads: where nothing was ever sent, no file is made.
        """
        path = self.folder / "outbox.db"
        if not path.exists():
            return 0, None
        query = "SELECT count(*), min(created) FROM deliveries JOIN messages ON id = message WHERE state = 'pending'"
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as con:
            count, oldest = con.execute(query).fetchone()
        return count, oldest

    def record(self, delivery: Delivery, state: str, at: float, problem: str | None = None) -> None:
        """Record one attempt: `sent`, `given up`, or `pending` until `at`."""
        with self._open() as con:
            con.execute(
                "UPDATE deliveries SET state = ?, at = ?, problem = ?, attempts = ? WHERE message = ? AND channel = ?",
                (state, at, problem, delivery.attempts + 1, delivery.message.id, delivery.channel),
            )

    def prune(self, now: float) -> None:
        """Delete messages older than `KEEP`; one added while the clock was ahead counts as added now."""
        with self._open() as con:
            con.execute("UPDATE messages SET created = ? WHERE created > ?", (now, now))
            con.execute("DELETE FROM messages WHERE created < ?", (now - KEEP,))


def _upgrade(con: sqlite3.Connection) -> None:
    """Add the column that outboxes of older versions lack; the second of two processes at once finds it there."""
    lacks_recipient = "SELECT NOT EXISTS (SELECT 1 FROM pragma_table_info('deliveries') WHERE name = 'recipient')"
    if con.execute(lacks_recipient).fetchone()[0]:
        con.execute("BEGIN IMMEDIATE")
        with con:
            if con.execute(lacks_recipient).fetchone()[0]:
                con.execute("ALTER TABLE deliveries ADD COLUMN recipient TEXT")


def deliver(outbox: Outbox, urls: Sequence[str], log: Log, now: float | None = None) -> int:
    """Send what is due and record it; returns how many messages were sent. Never raises for a channel.

    A channel that fails is not tried again in the same pass, so that it costs one timeout, not one per message.
    """
    now = time.time() if now is None else now
    channels, salt = open_channels(urls), outbox.salt()
    by_name = {channel.name: channel for channel in channels}
    by_fingerprint = {channel.fingerprint(salt): channel for channel in channels}
    deadline, sent, failing = time.monotonic() + PASS_SECONDS, 0, set[Channel]()
    try:
        with outbox.delivery_lock:
            outbox.prune(now)
            for delivery in outbox.due(now):
                if time.monotonic() > deadline:
                    break
                if delivery.recipient is None:
                    channel = by_name.get(delivery.channel)
                else:
                    channel = by_fingerprint.get(delivery.recipient)
                if channel is None:
                    outbox.record(delivery, "given up", now, "it is no longer configured")
                elif channel not in failing:
                    if problem := channel.send(delivery.message):
                        failing.add(channel)
                        log(_record_failure(outbox, delivery, channel.name, problem, now))
                    else:
                        outbox.record(delivery, "sent", now)
                        sent += 1
    except Timeout:
        log("Another process is sending notifications; these are left to it.")
    return sent


def _record_failure(outbox: Outbox, delivery: Delivery, channel: str, problem: str, now: float) -> str:
    """Schedule the next attempt, or give up; returns the line for the log."""
    failure = f"Channel {channel} did not receive {delivery.message.id}: {problem}."
    if now - delivery.created > GIVE_UP:
        outbox.record(delivery, "given up", now, problem)
        return f"{failure} Gave up after {delivery.attempts + 1} attempts. {advice(problem)}"
    wait = min(FIRST_WAIT * 2 ** min(delivery.attempts, 10), LONGEST_WAIT)
    outbox.record(delivery, "pending", now + wait, problem)
    return f"{failure} Next attempt in {wait} s. {advice(problem)}"
