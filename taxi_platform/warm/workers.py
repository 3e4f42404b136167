"""For the workers of `--jobs`; imported while the command imports Dagster itself.

Makes no files, as a Ctrl-C may end it at any moment.
"""

from __future__ import annotations

import importlib
import signal

from taxi_platform.trips.processes import end_with_parent
from taxi_platform.warm.up import warm_up

end_with_parent(signal.SIGKILL)  # `multiprocessing` would leave it alive as long as a worker lives, and workers with it
importlib.import_module("taxi_platform.cli")
warm_up()
