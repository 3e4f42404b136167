"""A published file whose columns are named to attack the UI: nobody is called, and nothing becomes part of a page."""

import gzip
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.support.hostile_texts import EVIL, HOSTILE
from taxi_platform_tests.support.system import DEADLINE, wait_for
from taxi_platform_tests.support.taxi_dev import taxi_dev

pytestmark = pytest.mark.browser
ATTACKS = ("image", "html image", "script", "bare link", "autolink", "link", "end of code", "escaped", "bare name")


@pytest.fixture(scope="module")
def evil():
    """A web server on loopback, and the paths it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


def publish(folder, month, evil_host):
    """A sample month with further columns, which are named to attack."""
    write_sample(DatasetMonth.parse("green", month), 300, folder / "sample.csv.gz")
    header, *lines = gzip.decompress((folder / "sample.csv.gz").read_bytes()).decode().splitlines()
    names = [HOSTILE[attack].replace(EVIL, evil_host).replace('"', '""') for attack in ATTACKS]
    header = ",".join([header, *(f'"{name}"' for name in names)])
    published = [header, *(line + ",7" * len(names) for line in lines if line)]
    (folder / f"green_{month}.csv").write_text("\n".join(published))


@pytest.mark.fault(88)
def test_hostile_column_names_call_nobody_and_inject_nothing(page, evil, tmp_path):
    host, asked = evil
    publish(tmp_path, "2026-09", host)
    called, elements = [], []
    page.on("request", lambda request: called.append(request.url) if host in request.url else None)
    source = f"file://{tmp_path}/{{dataset}}_{{month}}.csv"
    with taxi_dev(tmp_path / "home", TAXI_SOURCE_URL=source, TAXI_DATASETS="green") as platform:
        backfill = platform.launch_backfill("green", ["2026-09"])
        wait_for(lambda: platform.backfill_status(backfill) == "COMPLETED_SUCCESS", 2 * DEADLINE)
        (run,) = platform.backfill_runs(backfill)
        pages = {
            "assets/green/clean_trips?view=checks&checkDetail=no_unknown_columns": "Stored in extra_columns",
            "assets/green/clean_trips?view=partitions&partition=2026-09": "unknown_columns",
            "assets/green/clean_trips": "clean_trips",
            f"runs/{run['runId']}": "no_unknown_columns",
        }
        for path, expected in pages.items():
            page.goto(f"{platform.url}/{path}")
            if path.startswith("runs/"):
                page.get_by_placeholder("Filter").fill(expected)
            page.get_by_text(re.compile(expected)).first.wait_for()
            page.wait_for_load_state("networkidle")
            inside = page.evaluate(
                "host => [...document.querySelectorAll('[src], [href]')].map(each => each.outerHTML)"
                ".filter(html => html.includes(host) || html.includes('evil'))",
                host,
            )
            elements += [(path, element) for element in inside]
            assert page.evaluate("window.injected") is None, path
    assert (called, asked, elements) == ([], [], [])
