"""Files that whoever reads them finds whole: the old one or the new one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """Where to write a new file, which takes the place of `path` at the end, or is removed if that is not reached.

    It is written beside `path`, or in `folder` on the same file system.
    """
    temporary = (folder or path.parent) / f".{path.name}.{uuid.uuid4().hex[:8]}"
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
