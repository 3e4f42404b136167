"""The pictures of the documentation: browser tests take them of what they have just looked at.

`TAXI_TEST_PICTURES=docs/images .venv/bin/pytest -n 0 -m "browser and not soak" taxi_platform_tests/browser` takes all,
of a longer history than the tests need. Without the variable nothing is written.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

FOLDER = os.environ.get("TAXI_TEST_PICTURES", "")  # read here, because no test sees a TAXI_ variable of the machine
SCALE = 1.5 if FOLDER else 1
"""Pixels of a picture for one of the page: sharp on most screens, and most pictures stay below 200 kB."""


def take_picture(page: Any, name: str, **clip: float) -> None:
    """Write `name.png`: what is seen, or the part of it with this `x`, `y`, `width` and `height`."""
    if not FOLDER:
        return
    page.mouse.move(0, 0)  # no tooltip
    page.wait_for_timeout(2000)  # what moves or fades has come to rest
    whole = {"x": 0, "y": 0, **page.viewport_size}
    page.screenshot(path=Path(FOLDER) / f"{name}.png", clip={**whole, **clip})


def around(elements: Any, left: float, top: float, right: float, bottom: float) -> dict[str, float]:
    """The part of the page that has all these elements, with this many pixels on each side."""
    boxes = [element.bounding_box() for element in elements]
    x, y = min(box["x"] for box in boxes) - left, min(box["y"] for box in boxes) - top
    width = max(box["x"] for box in boxes) + right - x
    height = max(box["y"] for box in boxes) + bottom - y
    return {"x": x, "y": y, "width": width, "height": height}
