"""What people click in the UI to launch a backfill, for the browser tests and the backfill benchmark."""

from __future__ import annotations

import re
from typing import Any

WHOLE_GRAPH: Any = {"width": 3200, "height": 2000}
"""A window in which the graph of a group fits at a size at which Dagster's UI writes the checks on the assets."""


def materialize_group(page: Any, url: str, dataset: str, partitions: str) -> None:
    """Launch the dataset's assets for a partition or a range such as `[2021-01...2021-03]`, from the group's graph."""
    page.goto(f"{url}/locations/taxi_platform/asset-groups/{dataset}/lineage")
    page.get_by_role("button", name=re.compile("Materialize all")).click()
    _launch(page, partitions)


def materialize_asset(page: Any, url: str, asset: str, partitions: str) -> None:
    """Launch one asset, such as `green/trips`, for a partition or a range, from the asset's page."""
    page.goto(f"{url}/assets/{asset}")
    page.get_by_role("button", name=re.compile("Materialize")).first.click()
    _launch(page, partitions)


def materialize_everything(page: Any, url: str) -> str:
    """Launch every asset for all its partitions, from the lineage of the whole code location.

    The datasets begin in different months, so the dialog offers no range here; returns what it says instead.
    """
    page.goto(f"{url}/asset-groups")
    page.get_by_role("button", name=re.compile("Materialize all")).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("All partitions", exact=True).wait_for()
    text = dialog.inner_text()
    dialog.get_by_role("button", name="Launch backfill").click()
    return text


def _launch(page: Any, partitions: str) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Partition selection").wait_for()
    show_all = dialog.get_by_text("Show all partitions")
    if show_all.count():
        show_all.first.click()
    box = dialog.locator('input[type="text"]').first
    box.fill(partitions)
    box.press("Tab")
    dialog.get_by_role("button", name=re.compile("Launch")).click()
