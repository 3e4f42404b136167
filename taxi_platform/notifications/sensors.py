"""Messages about finished runs, by Apprise: what was loaded or failed, how many rows, what to do, where to look.

A sensor notes every finished run in an outbox, then delivers what is due there. It reads the runs themselves instead of
being a run-status sensor, whose cursor passes a run by even if its body raises; here nothing is passed by before it
stands in the outbox. A channel gets a message at least once: again only if the process is killed between sending and
recording, or if the channel took it without saying so in time; the message id tells the two for one.
URLs hold secrets: a channel is named by its position and scheme, and nothing that Apprise logs goes any further.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._time import get_current_timestamp  # the clock that runs are stamped with

from taxi_platform.assets.names import FRESHNESS_CHECK, PARTITION_TAG
from taxi_platform.notifications.channels import TAKES, Message, advice, check_notify_urls, open_channels
from taxi_platform.notifications.outbox import GIVE_UP, Outbox, Say, deliver
from taxi_platform.runs.ingest import INTERRUPTIONS, datasets_of
from taxi_platform.settings import Settings
from taxi_platform.trips.errors import SettingError

TICK_SECONDS = 30
NOTE_SECONDS = 10
PATIENCE, TAG_SECONDS = 600, 60
"""How long to look back for runs whose end is recorded late and to wait for a retry; for the tag announcing one."""

CHECK_FAILED = "DagsterAssetCheckFailedError"
LOOK = "Open the run: its log says more. Then run the month again: it does what is missing."
SECRETS = [
    (re.compile(r"://[^/\s]*@"), "://***@"),
    (re.compile(r"(://[^\s?]*\?)\S+"), r"\1***"),
    (re.compile(r"(?i)\b(password|passwd|token|secret|key)=\S+"), r"\1=***"),
]


def send_test(settings: Settings, say: Say) -> bool:
    """Send a message to every channel at once; says of each whether it worked and what to do otherwise."""
    if not settings.notify_urls:
        raise SettingError("TAXI_NOTIFY_URLS is not set.", TAKES)
    check_notify_urls(settings.notify_urls)
    number = f"test-{uuid.uuid4()}"
    body = f"This channel gets the messages about taxi runs.\nUI: {settings.ui_url}\nMessage id: {number}"
    worked = True
    for name, channel in open_channels(settings.notify_urls).items():
        problem = channel.send(Message(number, "taxi: test message", body))
        say(f"Channel {name}: {f'failed: {problem}. {advice(problem)}' if problem else 'sent.'}")
        worked &= problem is None
    return worked


def note_finished_runs(
    instance: dg.DagsterInstance, outbox: Outbox, urls: Sequence[str], link: str, since: float, now: float
) -> float:
    """Note the runs that finished after `since`, which are seconds since 1970; returns where to begin next time."""
    finished = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE],
        updated_after=datetime.fromtimestamp(max(since, now - GIVE_UP), UTC),
    )
    known, names, stop = outbox.known(), list(open_channels(urls)), time.monotonic() + NOTE_SECONDS
    for record in instance.get_run_records(finished, order_by="update_timestamp", ascending=True):
        run = record.dagster_run
        ended = record.end_time or record.update_timestamp.replace(tzinfo=UTC).timestamp()
        number, subject = f"{run.run_id}.{run.status.value.lower()}", _subject(run)
        if subject and number not in known and not _may_be_retried(instance, run, now - ended):
            if time.monotonic() > stop:
                return since
            message, loud = compose(instance, run, number, subject, link)
            outbox.add(message, names if loud else (), now)
    return max(since, now - PATIENCE)


def _subject(run: dg.DagsterRun) -> str | None:
    """`green 2020-04`; None for a run that ingests nothing."""
    datasets = datasets_of(run)
    return f"{', '.join(datasets)} {run.tags.get(PARTITION_TAG, '')}".strip() if datasets else None


def _may_be_retried(instance: dg.DagsterInstance, run: dg.DagsterRun, age: float) -> bool:
    """Whether a failure has to wait: a retry is announced but not begun, or the tag that announces it may yet come."""
    if run.status != dg.DagsterRunStatus.FAILURE or "dagster/auto_retry_run_id" in run.tags or age > PATIENCE:
        return False
    announced = run.tags.get("dagster/will_retry")
    return announced == "true" or (announced is None and instance.run_retries_enabled and age < TAG_SECONDS)


def compose(
    instance: dg.DagsterInstance, run: dg.DagsterRun, number: str, subject: str, link: str
) -> tuple[Message, bool]:
    """The message about a run, and whether it is worth sending: a month was loaded, or a failure is final."""
    wanted = {
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.ASSET_CHECK_EVALUATION,
        dg.DagsterEventType.STEP_FAILURE,
        dg.DagsterEventType.RUN_FAILURE,
    }
    logs = instance.all_logs(run.run_id, of_type=wanted)
    events = [log.dagster_event for log in logs if log.dagster_event]
    failure = run.status == dg.DagsterRunStatus.FAILURE
    counts, loaded = _counts(events)
    checks = _failed_checks(events)
    lines = [f"{subject} {'failed' if failure else 'was loaded' if loaded else 'holds nothing new'}."]
    if failure:
        problem, remedy = _failure(events, checks)
        lines += [f"Problem: {problem}", f"What to do: {remedy}"]
        if run.tags.get("dagster/will_retry") == "true":
            lines.append("A retry was announced, but none has begun.")
    lines += [*counts, *(f"Check failed: {check}" for check in checks[:3])]
    lines += [f"Run: {link}/runs/{run.run_id}", f"Message id: {number}"]
    title = f"taxi: {subject} {'failed' if failure else 'loaded'}"
    retried = "dagster/auto_retry_run_id" in run.tags
    return Message(number, title, "\n".join(lines), failure), not retried if failure else loaded


def _counts(events: Sequence[dg.DagsterEvent]) -> tuple[list[str], bool]:
    """A line of rows per dataset, and whether a table was loaded."""
    found: dict[str, dict[str, Any]] = {}
    loaded = False
    for event in events:
        if event.is_step_materialization:
            told = event.step_materialization_data.materialization
            values = {name: entry.value for name, entry in told.metadata.items()}
            found.setdefault(told.asset_key.path[0], {}).update(values)
            loaded |= "rows" in values and not values.get("unchanged")
    lines = []
    for dataset, values in found.items():
        labels = {"rows_read": "read", "rows_clean": "clean", "rows_rejected": "rejected", "rows": "in the table"}
        told_rows = [f"{values[name]:,} {label}" for name, label in labels.items() if name in values]
        if "rows_difference" in values:
            told_rows.append(f"{values['rows_difference']:+,} against the file before")
        lines += [f"Rows of {dataset}: {', '.join(told_rows)}"] if told_rows else []
    return lines, loaded


def _failed_checks(events: Sequence[dg.DagsterEvent]) -> list[str]:
    checks = [
        event.asset_check_evaluation_data
        for event in events
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ]
    failed = [check for check in checks if not check.passed and check.check_name != FRESHNESS_CHECK]
    return [_line(f"{check.check_name}: {check.description or 'failed'}") for check in failed]


def _failure(events: Sequence[dg.DagsterEvent], checks: Sequence[str]) -> tuple[str, str]:
    """The first line of what went wrong first, and what to do about it; never a traceback."""
    data = next((event.step_failure_data for event in events if event.is_step_failure), None)
    error = data.error if data else None
    told = data.user_failure_data if data else None
    explained = {name: str(entry.value) for name, entry in told.metadata.items()} if told else {}
    if "problem" in explained:
        remedy = explained.get("remedy", "none")
        return _line(explained["problem"]), LOOK if remedy == "none" else _line(remedy)
    if error and error.cls_name in INTERRUPTIONS:
        return "The run was interrupted.", "Run the month again: it does what is missing."
    if error and error.cls_name == CHECK_FAILED and checks:
        return checks[-1], LOOK
    if error:
        return _line((error.cause or error).message), LOOK
    ended = next((event.message for event in reversed(events) if event.message and event.is_failure), "")
    return _line(ended or "The run failed before its first step."), LOOK


def _line(text: str, limit: int = 300) -> str:
    """The first line, printable, bounded, without what looks like a secret: errors quote what strangers wrote."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = "".join(character if character.isprintable() else " " for character in line)
    for pattern, replacement in SECRETS:
        line = pattern.sub(replacement, line)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def tell(instance: dg.DagsterInstance, settings: Settings, since: float, say: Say) -> tuple[float, str]:
    """Note the runs that finished after `since` and deliver what is due; returns where to begin next time, and a word.

    Any process may call it at any time: a message is noted once, and delivered by one process at a time.
    """
    outbox, urls = Outbox(settings.home), settings.notify_urls
    now = get_current_timestamp()
    since = note_finished_runs(instance, outbox, urls, settings.ui_url, since, now)
    sent = deliver(outbox, urls, say, now)
    return since, f"{sent} messages sent, {outbox.waiting()} wait."


def build_notifications(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor that notes and delivers, switched on; none where no channel is configured."""
    if not settings.notify_urls:
        return []
    loaded = time.time()

    @dg.sensor(
        name="notifications",
        minimum_interval_seconds=TICK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the channels of TAXI_NOTIFY_URLS what was loaded and what failed.",
    )
    def notifications(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        since = float(context.cursor) if context.cursor else loaded
        since, told = tell(context.instance, settings, since, context.log.warning)
        context.update_cursor(f"{since:.3f}")
        return dg.SkipReason(told)

    return [notifications]
