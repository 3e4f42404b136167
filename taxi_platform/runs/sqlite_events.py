"""Dagster's events in its SQLite files: the same rows in the same files, stored with less work.

A run of a month stores 83 events, 36 of them in two files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dagster as dg

from taxi_platform.runs.dagster_internals import RunDomain, sql_event_log_module, sqlite_event_log_class, sqlite_modules

_this_thread = threading.local()
"""Its `transactions`: URL of a file → connection."""


@contextmanager
def events_stored_with_less_work() -> Iterator[None]:
    """In this process, until the end."""
    events, module = sqlite_event_log_class(), sql_event_log_module()
    with ExitStack() as stack:
        for owner, name, new in (
            (events, "_connect", _within_transactions(events._connect)),
            (module, "serialize_value", _serialized_once(module.serialize_value)),
            (RunDomain, "_log_asset_planned_events", _in_one_transaction(RunDomain._log_asset_planned_events)),
        ):
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, new)
        yield


def _serialized_once(serialize: Callable[..., str]) -> Callable[..., str]:
    """Dagster serializes a materialization once more for its asset's record, and the evaluation of a check for that."""
    latest: tuple[dg.EventLogEntry | None, str] = None, ""

    def serialize_once(value: Any, **options: Any) -> str:
        nonlocal latest
        event, text = latest
        if event is not None and value is event:
            return text
        if isinstance(value, dg.EventLogRecord) and value.event_log_entry is event:
            parts = f'"event_log_entry": {text}, "storage_id": {value.storage_id}'
            return f'{{"__class__": "EventLogRecord", {parts}}}'
        text = serialize(value, **options)
        if isinstance(value, dg.EventLogEntry):
            latest = value, text
        return text

    return serialize_once


def _in_one_transaction(log_planned: Callable[..., None]) -> Callable[..., None]:
    """The planned events of a new run, 18 for a month: one transaction for each file in place of 45."""

    def log(self: Any, run: dg.DagsterRun, *arguments: Any) -> None:
        storage = self._instance.event_log_storage
        if not isinstance(storage, sqlite_event_log_class()):
            log_planned(self, run, *arguments)
            return
        with storage.run_connection(run.run_id):
            pass  # makes the run's file
        index, own = (storage.conn_string_for_shard(shard) for shard in ("index", run.run_id))
        # The run's own file is committed first, as for each event.
        with _engine(index).begin() as in_index, _engine(own).begin() as in_own:
            _this_thread.transactions = {index: in_index, own: in_own}
            try:
                log_planned(self, run, *arguments)
            finally:
                _this_thread.transactions = {}

    return log


def _engine(url: str) -> Any:
    return sqlite_modules()[0].create_engine(url)  # the one that is held


def _within_transactions(connect: Any) -> Any:
    """Dagster's `_connect`, but in a transaction of `_in_one_transaction`, if this thread has one for the file."""

    @contextmanager
    def connected(self: Any, shard: str) -> Iterator[Any]:
        transactions = getattr(_this_thread, "transactions", {})
        if connection := transactions and transactions.get(self.conn_string_for_shard(shard)):
            yield connection
        else:
            with connect(self, shard) as connection:
                yield connection

    return connected
