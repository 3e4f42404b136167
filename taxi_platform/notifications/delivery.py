"""From finished runs to the channels: note every run in the outbox, then deliver what is due there.

The runs themselves are read instead of using a run-status sensor, whose cursor passes a run even if its body raises.
Here nothing is passed before it is in the outbox. A channel gets each message at least once: twice only if the process
is killed between sending and recording, or if the channel accepted it but did not confirm in time. The message id
identifies such duplicates.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from taxi_platform.notifications.channels import open_channels
from taxi_platform.notifications.messages import compose, subject_of
from taxi_platform.notifications.outbox import GIVE_UP, Log, Outbox, deliver
from taxi_platform.runs.dagster_internals import get_current_timestamp
from taxi_platform.settings import Settings

NOTE_SECONDS = 10
"""For reading finished runs in one pass; the next one continues."""
PATIENCE = 600
"""Seconds to look back for runs whose end is recorded late, and to wait for a retry that was announced."""
TAG_SECONDS = 60
"""Seconds to wait for the tag that announces a retry."""


def deliver_notifications(instance: dg.DagsterInstance, settings: Settings, log: Log) -> None:
    """Note the runs that finished since the last call and deliver what is due; does nothing without TAXI_NOTIFY_URLS.

    Any process may call it at any time, for example after ingesting. The outbox remembers the last call; the first one
    begins at the start of this process, so that switching notifications on sends nothing about earlier runs.
    """
    if not settings.notify_urls:
        return
    import psutil

    outbox = Outbox(settings.home)
    since = outbox.noted_until() or psutil.Process().create_time()
    since, _ = note_and_deliver(instance, settings, since, log)
    outbox.set_noted_until(since)


def note_and_deliver(instance: dg.DagsterInstance, settings: Settings, since: float, log: Log) -> tuple[float, str]:
    """Note the runs that finished after `since` and deliver what is due; returns the next `since` and a summary.

    Processes may call it at the same time: a run is noted once, and one process at a time delivers.
    """
    outbox, urls = Outbox(settings.home), settings.notify_urls
    now = get_current_timestamp()
    since = note_finished_runs(instance, outbox, urls, settings.ui_url, since, now)
    sent = deliver(outbox, urls, log, now)
    return since, f"{sent} messages sent, {outbox.waiting()} waiting."


def note_finished_runs(
    instance: dg.DagsterInstance, outbox: Outbox, urls: Sequence[str], link: str, since: float, now: float
) -> float:
    """Put messages about the runs that finished after `since` into the outbox; returns the next call's `since`.

    `since` and `now` are seconds since 1970.
    """
    if since > now:  # the clock was ahead once; this must not silence the runs until that time
        since = now - PATIENCE
    finished = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE],
        updated_after=datetime.fromtimestamp(max(since, now - GIVE_UP), UTC),
    )
    known, channels, deadline = outbox.known(), open_channels(urls), time.monotonic() + NOTE_SECONDS
    for record in instance.get_run_records(finished, order_by="update_timestamp", ascending=True):
        run = record.dagster_run
        ended = record.end_time or record.update_timestamp.replace(tzinfo=UTC).timestamp()
        message_id, subject = f"{run.run_id}.{run.status.value.lower()}", subject_of(run)
        if subject and message_id not in known and not _may_be_retried(instance, run, abs(now - ended)):
            if time.monotonic() > deadline:
                return since
            message, should_send = compose(instance, run, message_id, subject, link)
            outbox.add(message, channels if should_send else (), now)
    return max(since, now - PATIENCE)


def _may_be_retried(instance: dg.DagsterInstance, run: dg.DagsterRun, age: float) -> bool:
    """Whether a failure must wait: its retry has not started, or the tag that announces one may still be written."""
    if run.status != dg.DagsterRunStatus.FAILURE or "dagster/auto_retry_run_id" in run.tags or age > PATIENCE:
        return False
    announced = run.tags.get("dagster/will_retry")
    return announced == "true" or (announced is None and instance.run_retries_enabled and age < TAG_SECONDS)
