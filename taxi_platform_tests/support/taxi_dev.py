"""A real `taxi dev`, and its GraphQL: what the browser tests and the backfill benchmark look at."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from taxi_platform_tests.support.system import TAXI, free_port

ASSETS = ("raw_file", "clean_trips", "rejected_trips", "trips")
"""Of every dataset, in the order of its lineage."""

REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "taxi_platform"}

SWITCHED = ("Schedule", "ScheduleStateResult", "Sensor")
"""What GraphQL answers when a schedule or sensor was turned on or off."""


@dataclass(frozen=True)
class Platform:
    """`taxi dev` at `url`, its process id, home and environment."""

    url: str
    pid: int = 0
    home: Path = Path()
    environment: Mapping[str, str] = field(default_factory=dict)

    def taxi(self, *arguments: str) -> None:
        """Run another command on the same home, with the same settings; fails unless it succeeds."""
        subprocess.run([TAXI, *arguments], env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def ask(self, query: str, **variables: Any) -> Any:
        """The GraphQL answer's `data`; fails on errors."""
        answer = requests.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=300)
        body = answer.json()
        assert "errors" not in body, body
        return body["data"]

    def partitions(self, asset: str) -> list[str]:
        """All partitions that `green/trips` and the like can have, oldest first."""
        query = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) {
                     ... on AssetNode { partitionKeys } } }"""
        return self.ask(query, key={"path": asset.split("/")})["assetNodeOrError"]["partitionKeys"]

    def materialized(self, asset: str) -> set[str]:
        """The partitions of `green/trips` and the like that are materialized."""
        query = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
                     assetMaterializations(limit: 1000) { partition } } } }"""
        node = self.ask(query, key={"path": asset.split("/")})["assetNodeOrError"]
        return {materialization["partition"] for materialization in node["assetMaterializations"]}

    def ticks(self, kind: str, name: str) -> list[dict[str, Any]]:
        """The latest five ticks of a `Schedule` or `Sensor`, newest first, each with its status `switched`."""
        field = f"{kind.lower()}OrError({kind.lower()}Selector: $selector)"
        query = f"""query($selector: {kind}Selector!) {{ {field} {{
                      ... on {kind} {{ {kind.lower()}State {{ status
                      ticks(limit: 5) {{ status skipReason runIds }} }} }} }} }}"""
        state = self.ask(query, selector=selector(kind, name))[f"{kind.lower()}OrError"][f"{kind.lower()}State"]
        return [{"switched": state["status"], **tick} for tick in state["ticks"]] or [{"switched": state["status"]}]

    @contextmanager
    def switched_on(self, kind: str, name: str) -> Iterator[None]:
        """Turn a `Schedule` or `Sensor` on, and back at the end."""
        self._switch("start", kind, name)
        try:
            yield
        finally:
            self._switch("reset", kind, name)

    def _switch(self, action: str, kind: str, name: str) -> None:
        query = f"""mutation($selector: {kind}Selector!) {{
                      {action}{kind}({kind.lower()}Selector: $selector) {{ __typename }} }}"""
        assert self.ask(query, selector=selector(kind, name))[f"{action}{kind}"]["__typename"] in SWITCHED

    def launch_backfill(self, dataset: str, months: Sequence[str], assets: Sequence[str] = ASSETS) -> str:
        """Materialize assets of the dataset for these months, as the UI's dialog does; returns the backfill's id."""
        selection = [{"path": [dataset, asset]} for asset in assets]
        return self._launch_backfill(assetSelection=selection, partitionNames=list(months))

    def launch_job_backfill(self, dataset: str, months: Sequence[str]) -> str:
        """The same by the dataset's job, as the dialog on the job's page does; returns the backfill's id."""
        partition_set = {"partitionSetName": f"{dataset}_ingest_partition_set", "repositorySelector": REPOSITORY}
        return self._launch_backfill(selector=partition_set, partitionNames=list(months))

    def _launch_backfill(self, **parameters: Any) -> str:
        query = """mutation($parameters: LaunchBackfillParams!) {
                     launchPartitionBackfill(backfillParams: $parameters) { __typename
                       ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
        return self.ask(query, parameters=parameters)["launchPartitionBackfill"]["backfillId"]

    def newest_backfill(self) -> str | None:
        query = "{ partitionBackfillsOrError(limit: 1) { ... on PartitionBackfills { results { id } } } }"
        backfills = self.ask(query)["partitionBackfillsOrError"]["results"]
        return backfills[0]["id"] if backfills else None

    def backfill_status(self, backfill: str) -> str:
        query = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
                     ... on PartitionBackfill { status } } }"""
        return self.ask(query, id=backfill)["partitionBackfillOrError"]["status"]

    def backfill_months(self, backfill: str) -> dict[str, dict[str, int]]:
        """What the backfill's page shows: asset → its partitions `targeted`, `materialized`, `failed`, `inProgress`."""
        query = """query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill {
                     assetBackfillData { assetBackfillStatuses { ... on AssetPartitionsStatusCounts {
                       assetKey { path } targeted: numPartitionsTargeted inProgress: numPartitionsInProgress
                       materialized: numPartitionsMaterialized failed: numPartitionsFailed } } } } } }"""
        assets = self.ask(query, id=backfill)["partitionBackfillOrError"]["assetBackfillData"]["assetBackfillStatuses"]
        return {"/".join(asset.pop("assetKey")["path"]): asset for asset in assets if asset}

    def cancel_backfill(self, backfill: str) -> None:
        query = """mutation($id: String!) { cancelPartitionBackfill(backfillId: $id) { __typename } }"""
        answer = self.ask(query, id=backfill)["cancelPartitionBackfill"]
        assert answer["__typename"] == "CancelBackfillSuccess", answer

    def backfill_run_counts(self, backfill: str) -> dict[str, int]:
        """The number of its runs by status."""
        query = """query($tags: [ExecutionTag!]) { runsOrError(filter: {tags: $tags}, limit: 1000) { ... on Runs {
                     results { status } } } }"""
        runs = self.ask(query, tags=[{"key": "dagster/backfill", "value": backfill}])["runsOrError"]["results"]
        return dict(Counter(run["status"] for run in runs))

    def backfill_runs(self, backfill: str) -> list[dict[str, Any]]:
        """Its runs: `runId`, `status`, `creationTime`, `startTime` and `endTime` in seconds since 1970.

        `tags` is a dictionary; `datasets` are the groups of the assets that the run selects.
        """
        query = """query($tags: [ExecutionTag!]) { runsOrError(filter: {tags: $tags}, limit: 1000) { ... on Runs {
                     results { runId status creationTime startTime endTime tags { key value }
                       assetSelection { path } } } } }"""
        runs = self.ask(query, tags=[{"key": "dagster/backfill", "value": backfill}])["runsOrError"]["results"]
        return [
            {
                **run,
                "tags": {tag["key"]: tag["value"] for tag in run["tags"]},
                "datasets": {key["path"][0] for key in run["assetSelection"] or ()},
            }
            for run in runs
        ]

    def run_checks(self, run_id: str) -> dict[str, bool]:
        """The asset checks that a run evaluated, as `green/trips:check_name` → whether it passed."""
        query = """query($id: ID!) { runOrError(runId: $id) { ... on Run { assetChecks { name assetKey { path } }
                     eventConnection(limit: 1000) { events { ... on AssetCheckEvaluationEvent {
                       evaluation { checkName success assetKey { path } } } } } } } }"""
        events = self.ask(query, id=run_id)["runOrError"]["eventConnection"]["events"]
        evaluations = [event["evaluation"] for event in events if "evaluation" in event]
        return {f"{'/'.join(each['assetKey']['path'])}:{each['checkName']}": each["success"] for each in evaluations}

    def run_failures(self, run_id: str) -> list[str]:
        """What the failed steps of a run say."""
        query = """query($id: ID!) { runOrError(runId: $id) { ... on Run { eventConnection(limit: 1000) { events {
                     ... on ExecutionStepFailureEvent { error { message } } } } } } }"""
        events = self.ask(query, id=run_id)["runOrError"]["eventConnection"]["events"]
        return [event["error"]["message"] for event in events if event]

    def latest_checks(self, dataset: str) -> dict[str, str | None]:
        """`green/trips:check_name` → the status in the run created last, None if never evaluated.

        The graph counts a check with partitions as passed if it passed in every month: see `check_ranges`.
        """
        query = """query($keys: [AssetKeyInput!]) { assetNodes(assetKeys: $keys) { assetKey { path }
                     assetChecksOrError { ... on AssetChecks { checks { name
                       executionForLatestMaterialization { status } } } } } }"""
        nodes = self.ask(query, keys=[{"path": [dataset, asset]} for asset in ASSETS])["assetNodes"]
        return {
            f"{'/'.join(node['assetKey']['path'])}:{check['name']}": execution and execution["status"]
            for node in nodes
            for check in node["assetChecksOrError"]["checks"]
            for execution in [check["executionForLatestMaterialization"]]
        }

    def check_ranges(self, dataset: str) -> dict[str, list[tuple[str, str, str]]]:
        """`green/trips:check_name` → ranges of months with one status: `("SUCCEEDED", "2020-01", "2020-03")`."""
        query = """query($keys: [AssetKeyInput!]) { assetNodes(assetKeys: $keys) { assetKey { path }
                     assetChecksOrError { ... on AssetChecks { checks { name partitionStatuses {
                       ... on AssetCheckTimePartitionStatuses { ranges { status startKey endKey } } } } } } } }"""
        nodes = self.ask(query, keys=[{"path": [dataset, asset]} for asset in ASSETS])["assetNodes"]
        return {
            f"{'/'.join(node['assetKey']['path'])}:{check['name']}": [
                (months["status"], months["startKey"], months["endKey"])
                for months in check["partitionStatuses"]["ranges"]
            ]
            for node in nodes
            for check in node["assetChecksOrError"]["checks"]
            if check["partitionStatuses"]
        }


def selector(kind: str, name: str) -> dict[str, str]:
    """Which `Schedule` or `Sensor` a GraphQL query is about."""
    return {f"{kind.lower()}Name": name, **REPOSITORY}


@contextmanager
def taxi_dev(home: Path, **settings: str) -> Iterator[Platform]:
    """`taxi dev` on this home with these settings and no others, ended as Ctrl-C ends it unless it was killed."""
    port = free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TAXI_", "DAGSTER_"))}
    environment = {**inherited, "TAXI_HOME": str(home), **settings}
    command = [TAXI, "dev", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert "The UI is at" in process.stdout.readline()
            yield Platform(f"http://127.0.0.1:{port}", process.pid, home, environment)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(2 * 60)
