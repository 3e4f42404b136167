"""What shall be told and was told, in SQLite, and its delivery: at least once to every channel, whatever fails."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from taxi_platform.notifications.channels import Message, advice, open_channels

PASS_SECONDS = 20
"""For starting to send in one pass: with one message's time, less than the 60 s that Dagster gives a tick."""
FIRST_WAIT, LONGEST_WAIT, GIVE_UP, KEEP = 60, 3600, 3 * 86400, 90 * 86400

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id TEXT PRIMARY KEY, title TEXT NOT NULL, body TEXT NOT NULL, failure INTEGER NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    message TEXT NOT NULL REFERENCES messages ON DELETE CASCADE, channel TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending', at REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, problem TEXT,
    PRIMARY KEY (message, channel));
CREATE INDEX IF NOT EXISTS due ON deliveries (state, at);
"""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Delivery:
    """A message that one channel shall still get."""

    message: Message
    channel: str
    attempts: int
    created: float


class Outbox:
    """What was noted and what became of it, in SQLite: `notifications/outbox.db` in the home."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "notifications"

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.folder / "outbox.db", timeout=20)) as con:
            con.execute("PRAGMA foreign_keys = ON")
            con.executescript(SCHEMA)
            with con:
                yield con

    @property
    def turn(self) -> FileLock:
        """Held while delivering, so that two processes never send the same; the kernel frees it of a killed one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "deliver.lock", timeout=0)

    def known(self) -> set[str]:
        with self._open() as con:
            return {row[0] for row in con.execute("SELECT id FROM messages")}

    def add(self, message: Message, channels: Sequence[str], now: float) -> None:
        """Note a message for these channels (none: only that the run was seen); one that is known stays as it is."""
        with self._open() as con:
            row = (message.id, message.title, message.body, message.failure, now)
            if con.execute("INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?, ?)", row).rowcount:
                pending = [(message.id, channel, now) for channel in channels]
                con.executemany("INSERT INTO deliveries (message, channel, at) VALUES (?, ?, ?)", pending)

    def due(self, now: float) -> list[Delivery]:
        """What shall be sent now, what waits longest first."""
        query = """SELECT id, title, body, failure, channel, attempts, created
                   FROM deliveries JOIN messages ON id = message WHERE state = 'pending' AND at <= ? ORDER BY at"""
        with self._open() as con:
            rows = con.execute(query, (now,)).fetchall()
        return [Delivery(Message(row[0], row[1], row[2], bool(row[3])), row[4], row[5], row[6]) for row in rows]

    def waiting(self) -> int:
        with self._open() as con:
            return int(con.execute("SELECT count(*) FROM deliveries WHERE state = 'pending'").fetchone()[0])

    def record(self, delivery: Delivery, state: str, at: float, problem: str | None = None) -> None:
        """Write down one attempt: `sent`, `given up`, or `pending` until `at`."""
        with self._open() as con:
            con.execute(
                "UPDATE deliveries SET state = ?, at = ?, problem = ?, attempts = ? WHERE message = ? AND channel = ?",
                (state, at, problem, delivery.attempts + 1, delivery.message.id, delivery.channel),
            )

    def prune(self, now: float) -> None:
        with self._open() as con:
            con.execute("DELETE FROM messages WHERE created < ?", (now - KEEP,))


def deliver(outbox: Outbox, urls: Sequence[str], say: Say, now: float | None = None) -> int:
    """Send what is due and record it; returns how many were sent. Never raises for a channel.

    A channel that fails is left alone for the rest of the pass, so that it costs one timeout, not one a message.
    """
    now = time.time() if now is None else now
    stop, sent, failing, channels = time.monotonic() + PASS_SECONDS, 0, set[str](), open_channels(urls)
    try:
        with outbox.turn:
            outbox.prune(now)
            for delivery in outbox.due(now):
                if time.monotonic() > stop:
                    break
                channel = channels.get(delivery.channel)
                if channel is None:
                    outbox.record(delivery, "given up", now, "it is not configured any more")
                elif delivery.channel not in failing:
                    if problem := channel.send(delivery.message):
                        failing.add(delivery.channel)
                        _record_failure(outbox, delivery, problem, say, now)
                    else:
                        outbox.record(delivery, "sent", now)
                        sent += 1
    except Timeout:
        say("Another process is delivering.")
    return sent


def _record_failure(outbox: Outbox, delivery: Delivery, problem: str, say: Say, now: float) -> None:
    told = f"Channel {delivery.channel} did not get {delivery.message.id}: {problem}."
    if now - delivery.created > GIVE_UP:
        outbox.record(delivery, "given up", now, problem)
        say(f"{told} Given up after {delivery.attempts + 1} attempts. {advice(problem)}")
    else:
        wait = min(FIRST_WAIT * 2 ** min(delivery.attempts, 10), LONGEST_WAIT)
        outbox.record(delivery, "pending", now + wait, problem)
        say(f"{told} Tried again in {wait} s. {advice(problem)}")
