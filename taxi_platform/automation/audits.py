"""The job that audits everything, and the schedule that starts it every week.

Dagster reads the annotations of these functions when it decorates them, so they are not postponed here.
"""

from collections.abc import Sequence

import dagster as dg

from taxi_platform.assets.names import AUDIT_JOB
from taxi_platform.assets.resources import LakeResource
from taxi_platform.ingestion.audit import Problem, audit
from taxi_platform.trips.months import Dataset

SHOWN = 20
"""Problems that a failure's description lists; the run's log has all."""


def audit_job(datasets: Sequence[Dataset], warehouses: Sequence[str]) -> dg.JobDefinition:
    """The job `audit`: what `taxi audit` does, over all months of the datasets. `warehouses` are resource keys."""

    @dg.op(required_resource_keys={"lake", *warehouses})
    def read_everything(context: dg.OpExecutionContext) -> None:
        lake: LakeResource = context.resources.lake
        opened = [getattr(context.resources, key).open() for key in warehouses]
        problems: list[Problem] = []
        for audited in audit(lake.open(), opened, datasets, lake.work_home):
            (context.log.error if audited.problems else context.log.info)(str(audited))
            problems += audited.problems
        if problems:
            count = f"The audit found {len(problems)} problem{'' if len(problems) == 1 else 's'}"
            raise dg.Failure(
                "\n".join([f"{count}:", *map(str, problems[:SHOWN])]),
                metadata={"problem": f"{count}, the first: {problems[0].problem}", "remedy": problems[0].remedy},
                allow_retries=False,
            )

    @dg.job(
        name=AUDIT_JOB,
        executor_def=dg.in_process_executor,
        description="Read lake and tables whole, and prove that every month is what was fetched, cleaned and loaded.",
    )
    def job() -> None:
        read_everything()

    return job


def audit_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """The audit every Sunday night."""
    return dg.ScheduleDefinition(
        name="audit_schedule",
        job=job,
        cron_schedule="0 3 * * 0",
        execution_timezone="America/New_York",
        description="Every Sunday at 3:00: reads lake and tables whole, and fails with a list of what is damaged.",
    )
