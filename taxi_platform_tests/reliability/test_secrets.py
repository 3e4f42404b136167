"""A marked secret in every setting that may hold one is found nowhere afterwards: files, output, UI, messages."""

import json
import os
import signal
import subprocess

import pytest
import requests

from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.support.notification_receivers import web_hook
from taxi_platform_tests.support.system import TAXI, free_port, wait_for
from taxi_platform_tests.support.web_server import S3_DENIED, Page, serving

CANARY = "canary7f3a"
QUERIES = [
    "{ instance { info } }",
    """{ runsOrError { ... on Runs { results { id runConfigYaml tags { key value }
         eventConnection(limit: 1000) { events { __typename ... on MessageEvent { message }
         ... on ExecutionStepFailureEvent { error { message stack causes { message stack } } failureMetadata {
           metadataEntries { label ... on TextMetadataEntry { text } } } }
         ... on MaterializationEvent { metadataEntries { label ... on TextMetadataEntry { text }
           ... on UrlMetadataEntry { url } ... on MarkdownMetadataEntry { mdStr } } } } } } } } }""",
    """{ allTopLevelResourceDetailsOrError(repositorySelector: {repositoryName: "__repository__",
         repositoryLocationName: "taxi_platform"}) { __typename ... on ResourceDetailsList { results { name
         configuredValues { key value type } configFields { name description } } } } }""",
    "{ workspaceOrError { ... on Workspace { locationEntries { name displayMetadata { key value } } } } }",
]


@pytest.fixture
def settings(tmp_path):
    """A source with password and signature, a warehouse and a serving copy that do not answer, a channel, tokens."""
    with serving() as web, web_hook() as hook:
        write_sample(DatasetMonth.parse("green", "2020-04"), 300, tmp_path / "month.csv.gz")
        web.pages["/green_2020-04.csv.gz"] = Page((tmp_path / "month.csv.gz").read_bytes(), etag='"1"')
        web.pages["/green_2020-05.csv.gz"] = Page(b"<html>no</html>")
        web.pages["/green_2020-06.csv.gz"] = Page(S3_DENIED, 403)
        web.pages["/green_2020-07.csv.gz"] = Page(b"", 401)
        address = web.url.removeprefix("http://")
        environment = {
            "TAXI_SOURCE_URL": f"http://user:{CANARY}@{address}/{{dataset}}_{{month}}.csv.gz?signature={CANARY}",
            "TAXI_SERVING_URL": f"postgresql://user:{CANARY}@127.0.0.1:9/taxi?connect_timeout=2",
            "TAXI_NOTIFY_URLS": f"json://user:{CANARY}@{hook.address}/hook?+X-Token={CANARY} json://{CANARY}@127.0.0.1:9/",
            "TAXI_UI_TOKEN": CANARY + "0123456789abcdef",
            "TAXI_REPORT_TOKEN": CANARY + "fedcba9876543210",
            "TAXI_METRICS_TOKEN": CANARY + "0011223344556677",
            "TAXI_HOME": str(tmp_path / "home"),
            "TAXI_DATASETS": "green",
        }
        yield {**os.environ, **environment}, hook


def run(environment, *arguments):
    done = subprocess.run([TAXI, *arguments], env=environment, capture_output=True, text=True, timeout=240)
    return done.stdout + done.stderr


def ask(environment, port):
    """Everything the UI shows of runs, resources and workspace, once the server is up."""
    process = subprocess.Popen([TAXI, "dev", "--port", str(port)], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert "The UI is at" in process.stdout.readline()
        bearer = {"Authorization": f"Bearer {environment['TAXI_UI_TOKEN']}"}
        scraper = {"Authorization": f"Bearer {environment['TAXI_METRICS_TOKEN']}"}
        for path in ("metrics", "health"):
            answer = requests.get(f"http://127.0.0.1:{port}/{path}", headers=scraper, timeout=300)
            assert "taxi_up" in answer.text or "parts" in answer.text
            assert CANARY not in answer.text
        return [
            requests.post(f"http://127.0.0.1:{port}/graphql", json={"query": query}, headers=bearer, timeout=300)
            for query in QUERIES
        ]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(300)


@pytest.mark.fault(45)
@pytest.mark.slow
def test_no_secret_is_found_in_output_files_ui_or_messages(settings, tmp_path):
    environment, hook = settings
    shown = [
        run(environment, "doctor"),
        run(environment, "ingest", "green", "2020-04", "2020-07", "--jobs", "2", "--no-patient"),
        run(environment, "ingest", "green", "2020-04", "--jobs", "1", "--no-patient"),
        run(environment, "bootstrap", "--dry-run"),
        run(environment, "notify", "test"),
        run(environment, "status"),
        run(
            {**environment, "TAXI_WAREHOUSE_URL": f"{environment['TAXI_SERVING_URL']}&schema=a"},
            "ingest",
            "green",
            "2020-04",
            "--no-patient",
        ),
        run({**environment, "TAXI_SOURCE_URL": f"ftp://{CANARY}/{{month}}"}, "ingest", "green", "2020-04"),
        run({**environment, "TAXI_NOTIFY_URLS": f"nothing://{CANARY}"}, "doctor"),
    ]
    port = free_port()
    answers = ask(environment, port)
    wait_for(lambda: hook.requests)

    assert [text for text in shown if CANARY in text] == []
    assert "2020-04: loaded" in shown[1] or "2020-04: failed" in shown[1]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert "errors" not in answer.json(), answer.text[:1000]
        assert CANARY not in answer.text
    runs = answers[1].json()["data"]["runsOrError"]["results"]
    assert len(runs) == 6
    assert "TAXI_SOURCE_URL" in answers[2].text
    assert CANARY not in json.dumps([body for _, _, body in hook.requests])
    found = [path for path in (tmp_path / "home").rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert found == []
