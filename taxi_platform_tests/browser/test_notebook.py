"""The notebook, served by marimo beside a running platform: it draws, and follows what is chosen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from playwright.sync_api import expect

from taxi_platform_tests.browser.conftest import HISTORY
from taxi_platform_tests.support.pictures import take_picture
from taxi_platform_tests.support.system import DEADLINE, free_port, wait_for

pytestmark = pytest.mark.browser
MARIMO = Path(sys.executable).with_name("marimo")
NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_look.py"


@pytest.fixture
def notebook(platform, history):
    """The address of the notebook as marimo runs it, on the months of that platform."""
    port = free_port()
    command = [MARIMO, "run", NOTEBOOK, "--headless", "--host", "127.0.0.1", "--port", str(port), "--include-code"]
    environment = {**os.environ, "TAXI_HOME": str(platform.home)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: answers(url))
            yield url
        finally:
            process.terminate()


def answers(url):
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def test_the_notebook_draws_the_months_and_follows_the_month_that_is_chosen(page, notebook):
    called = []
    page.on("request", lambda request: called.append(request.url))
    page.set_viewport_size({"width": 1000, "height": 1260})
    page.goto(notebook)
    month = page.locator("select").last
    expect(page.get_by_role("heading", name="From a mart: trips by day")).to_be_visible(timeout=DEADLINE * 1000)
    charts = page.locator(".vega-embed canvas")
    expect(charts).to_have_count(3, timeout=DEADLINE * 1000)
    take_picture(page, "notebook", x=60, width=880)
    month.select_option(label=HISTORY[0])
    expect(page.get_by_text(f"The busiest zones of yellow {HISTORY[0]}")).to_be_visible()
    own = (notebook, notebook.replace("http", "ws"), "data:", "blob:")
    assert [url for url in called if not url.startswith(own)] == []
