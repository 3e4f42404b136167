"""Dagster's instance in its home, and the runs that killed processes left behind."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import dagster as dg
import yaml
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from taxi_platform.assets.names import CODE_SERVER_TAG, MAX_RETRIES_TAG, PROCESS_RUN_TAG, PROCESS_TAG
from taxi_platform.runs.connections import held_connections, held_postgres
from taxi_platform.runs.dagster_internals import is_known_revision
from taxi_platform.runs.home import without_url_characters, write_dagster_yaml, yaml_problem
from taxi_platform.runs.home_record import record_version
from taxi_platform.runs.mirroring import mirrored_by_threads
from taxi_platform.runs.sqlite import damaged_file, wait_for_locked_files
from taxi_platform.settings import Settings
from taxi_platform.trips.errors import DatabaseUnavailable, LakeError, TaxiError, UserError
from taxi_platform.trips.locks import lock_file
from taxi_platform.trips.os_errors import remedy
from taxi_platform.trips.processes import is_dead, is_of_other_container
from taxi_platform.trips.text import printable

FULL = (errno.ENOSPC, errno.EDQUOT)
HOMES = "TAXI_HOME (or DAGSTER_HOME)"
OPEN_SECONDS = 60
"""How long to wait for another process that opens the same home, which takes it less than a second."""
MOST_TRIES = 20
"""How often a run that dies with its code server is run again at most: it may be what takes the machine down."""


@contextmanager
def open_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance, with our `dagster.yaml` unless it has another; runs of dead processes are reported as failed.

    Sets DAGSTER_HOME and TAXI_HOME for this process and its children. Raises `LakeError` where the home cannot be
    written, `UserError` where a newer version wrote it, and `TaxiError` where Dagster's database fails, also while the
    instance is in use.
    """
    home = settings.dagster_home
    try:
        record_version(settings.home)
        write_dagster_yaml(home)
    except OSError as error:
        remedy = "Free some space and run again." if error.errno in FULL else f"Set {HOMES} to a folder that you own."
        raise LakeError(f"Cannot write {home}: {error.strerror}.", remedy) from error
    os.environ["DAGSTER_HOME"] = str(without_url_characters(home))
    os.environ["TAXI_HOME"] = str(settings.home)
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"  # also where somebody's own dagster.yaml does not say so
    try:
        with ExitStack() as stack:
            with _alone(home):
                instance = _entered(stack, home)
            report_dead_runs(instance)
            yield instance
    except (dg.DagsterInvalidConfigError, yaml.YAMLError) as error:
        raise _config_error(home, error) from error
    except (DBAPIError, sqlite3.DatabaseError) as error:
        raise _database_error(home, error) from error
    except Exception as error:
        # dagster-postgres, which takes two seconds to import, wraps the error of its last attempt to connect.
        if type(error).__name__ == "DagsterPostgresException" and isinstance(error.__cause__, DBAPIError):
            raise _database_error(home, error.__cause__) from error
        raise


def _entered(stack: ExitStack, home: Path) -> dg.DagsterInstance:
    try:
        return stack.enter_context(instance_of_process())
    except (ValueError, ArgumentError) as error:  # not shown: it may repeat a part of a password
        problem = f"A value in {home / 'dagster.yaml'} cannot be parsed, such as the port of a database's URL."
        raise UserError(problem, "Correct it; encode special characters in a password (%40 for @).") from error


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One process at a time.

    Dagster makes its SQLite files when it finds none. Of two processes that do so at once, one fails because a table
    exists already, or takes tables that are half made for those of an earlier Dagster.
    """
    with ExitStack() as stack:
        with suppress(OSError):  # nobody may write here, or the other one hangs: the files may be there all the same
            stack.enter_context(lock_file(home / "open.lock", f"another process that opens {home}", OPEN_SECONDS))
        yield


@contextmanager
def instance_of_process() -> Iterator[dg.DagsterInstance]:
    """The instance at DAGSTER_HOME, opened for executing many runs in this process."""
    wait_for_locked_files()
    with held_connections(), mirrored_by_threads(), dg.DagsterInstance.get() as instance, held_postgres(instance):
        yield instance


def _database_error(home: Path, error: DBAPIError | sqlite3.DatabaseError) -> TaxiError:
    if damaged := damaged_file(home):
        path, problem = damaged
        return TaxiError(
            f"Dagster's database {path} is damaged: {problem}.",
            f"Stop what uses it, move {path.parent} away, and run again: Dagster starts with an empty history. The "
            "months in lake and warehouse stay; running them again records them.",
        )
    said = f"Dagster's database failed: {getattr(error, 'orig', error)} (Dagster's home is {home})."
    if re.search("readonly database|unable to open database", said):  # SQLite's words for what is not permitted
        return TaxiError(said, remedy(errno.EACCES, "TAXI_HOME"))
    kind = DatabaseUnavailable if isinstance(error, OperationalError) else TaxiError
    return kind(
        said, "Check that the disk is not full and the database server runs. Run again: finished work is not redone."
    )


def _config_error(home: Path, error: Exception) -> UserError:
    path, text = home / "dagster.yaml", yaml_problem(error)
    # Dagster's text about these has several pages.
    if missing := sorted(set(re.findall(r'environment variable "(\w+)" which is not set', text))):
        return UserError(
            f"{path} needs variables that are not set: {', '.join(missing)}.",
            "Set them for every process that uses this home.",
        )
    problem = text.partition(" Expected: ")[0]  # every setting that there is
    problem = re.sub(r'Value ".*?" of type "', 'A value of type "', problem)  # it may be a password
    return UserError(f"Dagster does not accept {path}: {problem}", "Correct it, or move it away.")


def problem_at_start() -> str:
    """Why a process that starts now cannot open the instance at DAGSTER_HOME; empty if it can."""
    home = Path(os.environ["DAGSTER_HOME"])
    try:
        with dg.DagsterInstance.get():
            return ""
    except (dg.DagsterInvalidConfigError, yaml.YAMLError) as error:
        return str(_config_error(home, error))
    except Exception as error:  # of the database, or of any class that the file names
        return f"Dagster cannot start with {home / 'dagster.yaml'}: {described(error).rstrip('.')}."


def described(error: Exception) -> str:
    """What an error says, in one line and without a traceback."""
    cause = error.__cause__ if isinstance(error.__cause__, DBAPIError) else error  # dagster-postgres gives no reason
    cause = getattr(cause, "orig", None) or cause  # SQLAlchemy's repeats the query
    text = str(error) if isinstance(error, TaxiError) else f"{type(cause).__name__}: {cause}"
    return printable(" ".join(text.split()), 300)


def check_schema(instance: dg.DagsterInstance) -> str:
    """Say whether the tables of Dagster's database are those of the installed Dagster.

    Raises `TaxiError` if they are older: Dagster goes on with them, but a run may fail on a column that is missing.
    """
    states = [state for state in yaml.safe_load(instance.schema_str())["schema"].values() if state]
    revisions = {str(state["current"]) for state in states} - {str(state["latest"]) for state in states}
    if older := sorted(revision for revision in revisions if is_known_revision(revision)):
        raise TaxiError(
            f"The tables of Dagster's database are those of an earlier Dagster (revision {', '.join(older)}).",
            "Stop everything, make a backup, and run dagster instance migrate (docs/upgrading.md).",
        )
    if revisions:
        return (
            f"Dagster's tables are those of a later version (revision {', '.join(sorted(revisions))}), which it reads"
        )
    return "Dagster's tables are those of the installed version"


def report_dead_runs(instance: dg.DagsterInstance, is_server: bool = False) -> int:
    """Report the runs of killed processes as failed and free their slots in pools; returns how many.

    Dagster's code server does so for its children while it lives; nobody else does. A run that died with its code
    server is run again, whatever happened to it before: it was not its own doing. The server also reports those of
    a container that it has replaced: there is one server at a time.
    """

    def is_lost(run: dg.DagsterRun) -> bool:
        process = process_of(run) or ""
        return is_killed(run) or (is_server and CODE_SERVER_TAG in run.tags and is_of_other_container(process))

    statuses = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING]
    ended = [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=statuses)) if is_lost(run)]
    # Asked again: a process that has ended since the first answer may have finished its run before.
    dead = instance.get_runs(dg.RunsFilter(ended, statuses=statuses)) if ended else []
    for run in dead:
        if CODE_SERVER_TAG in run.tags:
            allow_another_try(instance, run)
        instance.report_run_failed(
            run, "The process of this run was killed. Run the month again: it continues where it stopped."
        )
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return len(dead)


def allow_another_try(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Let Dagster run a run again that is about to fail through no fault of its own, besides the tries it has.

    Up to `MOST_TRIES`.
    """
    tries = int(run.tags.get(MAX_RETRIES_TAG, instance.run_retries_max_retries)) + 1
    if tries <= MOST_TRIES:
        instance.add_run_tags(run.run_id, {MAX_RETRIES_TAG: str(tries)})


def process_of(run: dg.DagsterRun) -> str | None:
    """The name of the process that executes the run; None if it has not begun, or did before there were such tags."""
    # Earlier versions did not write the second tag.
    owner = run.tags.get(PROCESS_RUN_TAG, "" if run.parent_run_id else run.run_id)
    return run.tags.get(PROCESS_TAG) if owner == run.run_id else None


def is_killed(run: dg.DagsterRun) -> bool:
    """Whether the run has a process of its own, and that has ended."""
    process = process_of(run)
    return process is not None and is_dead(process)
