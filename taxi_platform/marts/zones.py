"""The shapes of the taxi zones, for maps."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def zone_shapes() -> dict[str, Any]:
    """The shapes of the TLC's taxi zones as TopoJSON, in degrees of longitude and latitude (WGS 84).

    Its object `zones` has a geometry for each shape, with the zone's `location_id` as a property: 260 of 265 zones have
    one or more. The TLC publishes none for 57, 104 and 105, nor for 264 and 265, which lie elsewhere. `source` says
    where the shapes come from and how they were simplified.
    """
    text = resources.files("taxi_platform.marts").joinpath("taxi_zones.topojson").read_text("utf-8")
    shapes: dict[str, Any] = json.loads(text)
    return shapes
