"""The child's side of the agreement in this package's docstring; plain standard library, any Python from 3.11."""

import os
import sys
import threading


def announce(port: int) -> None:
    """Tell the parent the port, and end when the parent is gone."""
    print(port, flush=True)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)
