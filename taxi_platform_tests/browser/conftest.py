"""The real UI as `taxi dev` serves it, a real browser to drive it, and GraphQL to see what came of it."""

import os
import signal
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from taxi_platform_tests.support.shared import DEADLINE, TAXI, chromium, free_port


@dataclass(frozen=True)
class Platform:
    """`taxi dev` at `url`."""

    url: str

    def ask(self, query: str, **variables: Any) -> Any:
        answer = requests.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60)
        body = answer.json()
        assert "errors" not in body, body
        return body["data"]

    def materialized(self, asset: str) -> set[str]:
        """The partitions of `green/trips` and the like that are materialized."""
        query = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
                     assetMaterializations(limit: 1000) { dataset_month } } } }"""
        found = self.ask(query, key={"path": asset.split("/")})["assetNodeOrError"]["assetMaterializations"]
        return {entry["partition"] for entry in found}

    def ticks(self, kind: str, name: str) -> list[dict[str, Any]]:
        """The ticks of a schedule or sensor, newest first."""
        asked = f"{kind.lower()}OrError({kind.lower()}Selector: $selector)"
        query = f"""query($selector: {kind}Selector!) {{ {asked} {{
                      ... on {kind} {{ {kind.lower()}State {{ status
                      ticks(limit: 5) {{ status skipReason runIds }} }} }} }} }}"""
        selector = {
            f"{kind.lower()}Name": name,
            "repositoryName": "__repository__",
            "repositoryLocationName": "taxi_platform",
        }
        state = self.ask(query, selector=selector)[f"{kind.lower()}OrError"][f"{kind.lower()}State"]
        return [{"switched": state["status"], **tick} for tick in state["ticks"]] or [{"switched": state["status"]}]


@pytest.fixture(scope="session")
def platform(tmp_path_factory):
    """`taxi dev` on a home of its own, with small synthetic months."""
    port = free_port()
    home = tmp_path_factory.mktemp("ui") / "home"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TAXI_", "DAGSTER_"))}
    settings = {
        "TAXI_HOME": str(home),
        "TAXI_SOURCE_URL": "sample://?rows=3000",
        "TAXI_SINCE": "2026-07",
        "TAXI_SCHEDULE": "* * * * *",
    }
    process = subprocess.Popen(
        [TAXI, "dev", "--port", str(port)], env={**environment, **settings}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert "The UI is at" in process.stdout.readline()
        yield Platform(f"http://127.0.0.1:{port}")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.fixture(scope="session")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.set_default_timeout(DEADLINE * 1000)
    yield page
    page.close()
