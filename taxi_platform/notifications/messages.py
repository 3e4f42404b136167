"""The message about a finished run: what was loaded or failed, how many rows, what to do, and where to look."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from taxi_platform.assets.names import (
    AUDIT_JOB,
    FRESHNESS_CHECK,
    MARTS_JOB,
    PARTITION_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    SET_ASIDE_CHECK,
)
from taxi_platform.assets.partitions import datasets_of
from taxi_platform.marts.tables import MARTS
from taxi_platform.notifications.channels import Message
from taxi_platform.runs.history import INTERRUPTIONS, own_error
from taxi_platform.trips.text import markdown

OTHER_JOBS = {AUDIT_JOB: "The audit", MARTS_JOB: "The job of the marts' views"}
"""The jobs without months of which failures are reported → what a message calls them."""
CHECK_FAILED = "DagsterAssetCheckFailedError"
SEE_RUN = "Open the run and read its log. Then run the month again: it completes only what is missing."
SECRETS = [
    (re.compile(r"://[^/\s]*@"), "://***@"),
    (re.compile(r"(://[^\s?]*\?)\S+"), r"\1***"),
    (re.compile(r"(?i)\b(password|passwd|token|secret|key)=\S+"), r"\1=***"),
]
ROW_LABELS = {"rows_read": "read", "rows_clean": "clean", "rows_rejected": "rejected", "rows": "in the table"}


def subject_of(run: dg.DagsterRun) -> str | None:
    """The run's datasets and months, as `green 2020-04` or `green 2020-01 to 2020-03`; None for other runs."""
    if run.job_name in OTHER_JOBS:
        return OTHER_JOBS[run.job_name]
    datasets = datasets_of(run)
    if not datasets:
        return None
    first, last = (run.tags.get(tag, run.tags.get(PARTITION_TAG, "")) for tag in (RANGE_START_TAG, RANGE_END_TAG))
    months = first if first == last else f"{first} to {last}"
    return markdown(f"{', '.join(datasets)} {months}".strip(), limit=100)


def compose(
    instance: dg.DagsterInstance, run: dg.DagsterRun, message_id: str, subject: str, link: str
) -> tuple[Message, bool]:
    """The message about a run, and whether to send it: a month was loaded or set aside, or a failure is final.

    `link` is the UI's address without a trailing slash.
    """
    event_types = {
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.ASSET_CHECK_EVALUATION,
        dg.DagsterEventType.STEP_FAILURE,
        dg.DagsterEventType.RUN_FAILURE,
    }
    logs = instance.all_logs(run.run_id, of_type=event_types)
    events = [log.dagster_event for log in logs if log.dagster_event]
    failure = run.status == dg.DagsterRunStatus.FAILURE
    counts, loaded = _counts(events)
    checks = _failed_checks(events)
    accept = _accept_command(events)
    outcome = "failed" if failure else "was loaded" if loaded else "did not change"
    lines = [f"{subject} {outcome}."]
    if failure:
        problem, remedy = _failure(events, checks)
        lines += [f"Problem: {problem}", f"What to do: {remedy}"]
        if run.tags.get("dagster/will_retry") == "true":
            lines.append("A retry was announced but has not started.")
    elif accept:
        lines.append(f"What to do: look at the file. If it is right: {accept}")
    lines += [*counts, *(f"Check failed: {check}" for check in checks[:3])]
    lines += [f"Run: {link}/runs/{run.run_id}", f"Message id: {message_id}"]
    title = f"taxi: {subject} {'failed' if failure else 'loaded' if loaded else 'set aside'}"
    is_retried = "dagster/auto_retry_run_id" in run.tags
    return Message(message_id, title, "\n".join(lines), failure), not is_retried if failure else loaded or bool(accept)


def compose_about_service(problem: str, message_id: str, logs: Path, link: str) -> Message:
    """The message about a part of `taxi serve` that ended, or about its end; `logs` is the folder of the logs."""
    lines = [f"Problem: {_line(problem)}", f"Logs: {logs}", f"UI: {link}", f"Message id: {message_id}"]
    return Message(message_id, "taxi: a part of the service ended", "\n".join(lines), failure=True)


def _counts(events: Sequence[dg.DagsterEvent]) -> tuple[list[str], bool]:
    """One line of row counts per dataset, and whether a table of trips was loaded: marts follow from it."""
    metadata: dict[str, dict[str, Any]] = {}
    loaded = False
    for event in events:
        if event.is_step_materialization:
            materialization = event.step_materialization_data.materialization
            if materialization.asset_key.path[-1] in MARTS:
                continue
            values = {name: entry.value for name, entry in materialization.metadata.items()}
            metadata.setdefault(materialization.asset_key.path[0], {}).update(values)
            loaded |= "rows" in values and not values.get("unchanged")
    lines = []
    for dataset, values in metadata.items():
        counts = [f"{values[name]:,} {label}" for name, label in ROW_LABELS.items() if name in values]
        if "rows_difference" in values:
            counts.append(f"{values['rows_difference']:+,} compared with the previous file")
        if counts:
            lines.append(f"Rows of {dataset}: {', '.join(counts)}")
    return lines, loaded


def _accept_command(events: Sequence[dg.DagsterEvent]) -> str:
    """The command that accepts the version that is set aside; empty if none is."""
    for check in _evaluations(events):
        if check.check_name == SET_ASIDE_CHECK and not check.passed and "remedy" in check.metadata:
            return _line(str(check.metadata["remedy"].value))
    return ""


def _failed_checks(events: Sequence[dg.DagsterEvent]) -> list[str]:
    failed = [check for check in _evaluations(events) if not check.passed and check.check_name != FRESHNESS_CHECK]
    return [_line(f"{check.check_name}: {check.description or 'failed'}", limit=600) for check in failed]


def _evaluations(events: Sequence[dg.DagsterEvent]) -> list[dg.AssetCheckEvaluation]:
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    return [event.asset_check_evaluation_data for event in events if event.event_type == kind]


def _failure(events: Sequence[dg.DagsterEvent], checks: Sequence[str]) -> tuple[str, str]:
    """The first line of the first problem, and its remedy; never a traceback."""
    step_failure = next((event.step_failure_data for event in events if event.is_step_failure), None)
    error = step_failure.error if step_failure else None
    failure = step_failure.user_failure_data if step_failure else None
    metadata = {name: str(entry.value) for name, entry in failure.metadata.items()} if failure else {}
    if "problem" in metadata:
        remedy = metadata.get("remedy", "none")
        return _line(metadata["problem"]), SEE_RUN if remedy == "none" else _line(remedy)
    if error and error.cls_name in INTERRUPTIONS:
        return "The run was interrupted.", "Run the month again: it completes only what is missing."
    if error and error.cls_name == CHECK_FAILED and checks:
        return checks[-1], SEE_RUN
    if error:
        return _line((error.cause or error).message), SEE_RUN
    messages = (own_error(event) or event.message for event in reversed(events) if event.is_failure)
    return _line(next(filter(None, messages), "") or "The run failed before its first step."), SEE_RUN


def _line(text: str, limit: int = 300) -> str:
    """The first line, as Markdown without links, with likely secrets masked: errors quote outside input."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    for pattern, replacement in SECRETS:
        line = pattern.sub(replacement, line)
    return markdown(line, limit)
