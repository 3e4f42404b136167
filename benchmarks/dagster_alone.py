"""The floor of a command: a Dagster job of as many assets and checks as a month has, with its metadata and no bodies.

`note_run` notes what a run of `taxi ingest` reported. `python -m benchmarks.dagster_alone FILE MONTH LAST_MONTH JOBS`
reports the same for each month, in so many processes: Dagster alone, its SQLite files opened as `taxi ingest` does.
"""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

JOB = "floor"
CHECK_FIELDS = ("name", "description", "blocking", "partitions_def")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Step:
    """One step of a run: its assets and checks, each with the assets before it, and what it reported of them."""

    name: str
    assets: Sequence[tuple[dg.AssetSpec, list[dg.AssetKey]]]
    checks: Sequence[tuple[dict[str, Any], list[dg.AssetKey]]]
    results: Sequence[tuple[type, dict[str, Any]]]
    """Class and fields of each: neither Dagster's results nor its `AssetDep` can be pickled."""

    @classmethod
    def of(cls, definition: dg.AssetsDefinition, events: Sequence[dg.DagsterEvent]) -> Step:
        assets = [(spec.replace_attributes(deps=[]), _keys(spec.deps)) for spec in definition.specs]
        checks = [
            (
                {"asset": spec.asset_key} | {name: getattr(spec, name) for name in CHECK_FIELDS},
                _keys(spec.additional_deps),
            )
            for spec in definition.check_specs
        ]
        reported = [_result(event) for event in events if event.step_key == definition.op.name]
        return cls(definition.op.name, assets, checks, list(filter(None, reported)))

    def definition(self) -> dg.AssetsDefinition:
        """The step with a body that only reports."""

        def body() -> Iterator[Any]:
            yield from (result(**fields) for result, fields in self.results)

        checks = [dg.AssetCheckSpec(**fields, additional_deps=keys) for fields, keys in self.checks]
        if not self.assets:
            return dg.multi_asset_check(name=self.name, specs=checks)(body)
        assets = [spec.replace_attributes(deps=keys) for spec, keys in self.assets]
        return dg.multi_asset(name=self.name, specs=assets, check_specs=checks)(body)


def _keys(deps: Iterable[dg.AssetDep]) -> list[dg.AssetKey]:
    return [dep.asset_key for dep in deps]


def note_run(dataset: str, file: str) -> int:
    """In a child with the settings of a home: note the steps of its latest run of the dataset; returns how many."""
    from taxi_platform.assets.names import job_name
    from taxi_platform.definitions import build_definitions
    from taxi_platform.settings import load_settings
    from taxi_platform.trips.months import Dataset

    definitions, name = build_definitions(load_settings()), job_name(Dataset.parse(dataset))
    with dg.DagsterInstance.get() as instance:
        run = instance.get_runs(dg.RunsFilter(job_name=name), limit=1)[0]
        events = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
    of_job = {node.name for node in definitions.resolve_job_def(name).nodes}
    steps = [Step.of(step, events) for step in _steps_of(definitions) if step.op.name in of_job]
    Path(file).write_bytes(pickle.dumps(steps))
    return len(steps)


def note_definitions(file: str) -> int:
    """In a child: note the steps of the whole code location, by its environment; returns how many."""
    from taxi_platform.definitions import build_definitions
    from taxi_platform.settings import load_settings

    steps = [Step.of(step, []) for step in _steps_of(build_definitions(load_settings()))]
    Path(file).write_bytes(pickle.dumps(steps))
    return len(steps)


def _steps_of(definitions: dg.Definitions) -> list[dg.AssetsDefinition]:
    every = [*(definitions.assets or ()), *(definitions.asset_checks or ())]
    return [step for step in every if isinstance(step, dg.AssetsDefinition)]


def load_definitions(file: str) -> None:
    """Load a code location of the file's steps, with a job for each group of its assets."""
    warnings.simplefilter("ignore", dg.PreviewWarning)
    steps: list[Step] = pickle.loads(Path(file).read_bytes())
    groups = sorted({spec.group_name or "" for step in steps for spec, _ in step.assets})
    jobs = [dg.define_asset_job(f"{group}_job", dg.AssetSelection.groups(group)) for group in groups]
    dg.Definitions([step.definition() for step in steps], jobs=jobs).get_repository_def()


def _result(event: dg.DagsterEvent) -> tuple[type, dict[str, Any]] | None:
    if event.is_step_materialization:
        stored: Any = event.step_materialization_data.materialization
        return dg.MaterializeResult, _fields(stored, "asset_key", "metadata")
    if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        check = event.asset_check_evaluation_data
        fields = _fields(check, "asset_key", "check_name", "passed", "severity", "description", "metadata")
        return dg.AssetCheckResult, fields
    return None


def _fields(of: object, *names: str) -> dict[str, Any]:
    return {name: getattr(of, name) for name in names}


def report(file: str, months: Sequence[str]) -> None:
    """In a process of its own: run the steps of the file once for each month."""
    from taxi_platform.runs.connections import held_connections
    from taxi_platform.runs.dagster_internals import NOISY_LOGGERS
    from taxi_platform.runs.mirroring import mirrored_by_threads
    from taxi_platform.trips.collecting import collect_seldom

    collect_seldom()
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore", dg.PreviewWarning)
    steps: list[Step] = pickle.loads(Path(file).read_bytes())
    job = dg.define_asset_job(JOB, dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks())
    definitions = dg.Definitions([step.definition() for step in steps], jobs=[job], executor=dg.in_process_executor)
    with held_connections(), mirrored_by_threads(), dg.DagsterInstance.get() as instance:
        for month in months:
            result = definitions.resolve_job_def(JOB).execute_in_process(QUIET, instance, partition_key=month)
            assert result.success


def main(file: str, first: str, last: str, jobs: int) -> None:
    """Report the months, in so many processes at once."""
    from taxi_platform.runs.connections import held_connections
    from taxi_platform.trips.months import Month

    months = list(map(str, Month.parse(first).until(Month.parse(last))))
    if jobs == 1:
        report(file, months)
        return
    with held_connections(), dg.DagsterInstance.get():
        pass  # as the parent of workers does; two that make the tables at once get in each other's way
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(partial(report, file), [months[number::jobs] for number in range(jobs)]))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
