"""A real Prometheus scrapes a real `taxi dev`, with the files of `deploy/monitoring`: its panels and alerts."""

import json
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import yaml

from taxi_platform_tests.support.system import free_port, installed, wait_for
from taxi_platform_tests.support.taxi_dev import taxi_dev

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
TOKEN = "a-token-for-metrics-0123456789"
DASHBOARD = json.loads((FOLDER / "taxi-dashboard.json").read_text("utf-8"))
WITHOUT_VALUES = {"Ticks that failed, last 24 hours"}
"""The panel of schedules and sensors, of which none is on."""


def test_promtool_accepts_the_rules_and_they_fire_when_they_should():
    cases = Path(__file__).with_name("alert_cases.yml")
    for arguments in (["check", "rules", str(FOLDER / "taxi-rules.yml")], ["test", "rules", str(cases)]):
        checked = subprocess.run([installed("promtool"), *arguments], capture_output=True, text=True, timeout=300)
        assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with taxi_dev(home, TAXI_SOURCE_URL="sample://?rows=50", TAXI_METRICS_TOKEN=TOKEN) as running:
        running.taxi("ingest", "green", "2020-01")
        wait_for(lambda: "taxi_months{" in scrape(running))
        yield running


def scrape(platform):
    return requests.get(f"{platform.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60).text


class Prometheus:
    """Prometheus's HTTP interface."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, path, **parameters):
        body = requests.get(f"{self.url}/{path}", params=parameters, timeout=60).json()
        assert body["status"] == "success", body
        return body["data"]

    def values(self, expression):
        return [float(series["value"][1]) for series in self.ask("query", query=expression)["result"]]

    def alerts(self):
        return {alert["labels"]["alertname"]: alert["state"] for alert in self.ask("alerts")["alerts"]}


@pytest.fixture
def prometheus(platform, tmp_path):
    """Prometheus with the configuration that is to be copied, but that it asks and judges each second."""
    settings = yaml.safe_load(
        (FOLDER / "prometheus.yml").read_text("utf-8").replace("# authorization", "authorization")
    )
    (job,) = settings["scrape_configs"]
    token = tmp_path / "token"
    token.write_text(TOKEN)
    job["authorization"]["credentials_file"] = str(token)
    job["static_configs"][0]["targets"] = [platform.url.removeprefix("http://")]
    job["scrape_interval"] = "1s"
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings | {"global": {"evaluation_interval": "1s"}}))
    shutil.copy(FOLDER / "taxi-rules.yml", tmp_path)
    with running_prometheus(tmp_path) as prometheus:
        wait_for(lambda: prometheus.values('up{job="taxi_platform"}') == [1])
        yield prometheus, token


@contextmanager
def running_prometheus(folder):
    port = free_port()
    command = [installed("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (
        (folder / "prometheus.log").open("wb") as log,
        subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log) as process,
    ):
        try:
            wait_for(lambda: answers(process, port))
            yield Prometheus(port)
        finally:
            process.terminate()


def answers(process, port):
    assert process.poll() is None
    try:
        return requests.get(f"http://127.0.0.1:{port}/-/ready", timeout=60).ok
    except requests.ConnectionError:
        return False


@pytest.mark.slow
def test_promtool_accepts_a_scrape(platform):
    command = [installed("promtool"), "check", "metrics"]
    checked = subprocess.run(command, input=scrape(platform), capture_output=True, text=True, timeout=300)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.slow
def test_every_panel_shows_values_and_alerts_are_raised_and_withdrawn(platform, prometheus):
    prometheus, token = prometheus
    wait_for(lambda: prometheus.values('taxi_months{dataset="green",state="loaded"}') == [1])
    wait_for(lambda: empty_panels(prometheus) == WITHOUT_VALUES)  # a rate needs several scrapes
    (group,) = prometheus.ask("rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    assert "TaxiNotScraped" not in prometheus.alerts()

    token.write_text("another")
    wait_for(lambda: prometheus.alerts().get("TaxiNotScraped") == "pending")
    token.write_text(TOKEN)
    wait_for(lambda: "TaxiNotScraped" not in prometheus.alerts())


def empty_panels(prometheus):
    """The titles of panels of which an expression has no values when everything is chosen."""
    return {
        panel["title"]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
        if not prometheus.values(target["expr"].replace("$instance", ".*").replace("$dataset", ".*"))
    }
