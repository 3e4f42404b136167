"""Takes docs/images/overview.png, the picture of the README: `.venv/bin/python scripts/overview_picture.py`.

It shows the overview in TAXI_HOME, so run `make demo` before.
"""

from __future__ import annotations

import os
from pathlib import Path

from taxi_platform.marts.overview import overview_path
from taxi_platform_tests.support.system import chromium

TARGET = Path(__file__).parents[1] / "docs" / "images" / "overview.png"

with chromium() as browser:
    page = browser.new_page(viewport={"width": 1000, "height": 1240})
    page.goto(overview_path(Path(os.environ.get("TAXI_HOME", "data")).absolute()).as_uri())
    page.screenshot(path=TARGET)
