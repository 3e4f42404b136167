"""New York's taxi trips, every month since 2009, in a lake and a warehouse, as a Dagster asset platform."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taxi_platform.marts.python_api import load_mart as load_mart
    from taxi_platform.marts.python_api import load_rejected as load_rejected
    from taxi_platform.marts.python_api import load_trips as load_trips
    from taxi_platform.marts.python_api import months as months
    from taxi_platform.marts.python_api import zone_shapes as zone_shapes

__version__ = "0.2.0"

_PYTHON_API = ("load_mart", "load_rejected", "load_trips", "months", "zone_shapes")


def __getattr__(name: str) -> Any:
    """Import the Python API when it is first used: commands and runs do not need it."""
    if name in _PYTHON_API:
        from taxi_platform.marts import python_api

        return getattr(python_api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_PYTHON_API]
