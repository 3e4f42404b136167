"""gcp-storage-emulator that honours preconditions on generations, names them in downloads, and knows an object's end.

Run as a module it is the server; imported it starts one. The server handles one request at a time, so a check and the
write after it are not torn apart.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from taxi_platform_tests.support.emulators import LOOPBACK, running


@contextmanager
def gcs_emulator(folder: Path) -> Iterator[str]:
    """Run the emulator with its objects in memory; yields the value for STORAGE_EMULATOR_HOST."""
    with running([sys.executable, "-m", "taxi_platform_tests.support.emulators.gcs"], folder) as url:
        yield url


def _target(request: Any, storage: Any) -> tuple[str, str]:
    """Bucket and name of the object whose generation the request asks about."""
    bucket = request.params["bucket_name"]
    if upload := request.query.get("upload_id"):
        return bucket, storage.get_resumable_file_obj(upload[0])["name"]
    if "dest_object_id" in request.params:
        return request.params["dest_bucket_name"], request.params["dest_object_id"]
    if name := request.params.get("object_id") or (request.query.get("name") or [None])[0]:
        return bucket, name
    return bucket, (request.data.get("meta") or request.data)["name"]


def _holds(request: Any, storage: Any) -> bool:
    from gcp_storage_emulator.exceptions import NotFound

    expected = request.query.get("ifGenerationMatch")
    unexpected = request.query.get("ifGenerationNotMatch")
    if not expected and not unexpected:
        return True
    try:
        generation = str(storage.get_file_obj(*_target(request, storage))["generation"])
    except NotFound:
        generation = "0"
    return (not expected or expected[0] == generation) and (not unexpected or unexpected[0] != generation)


def _checked(handler: Callable[..., None]) -> Callable[..., None]:
    from gcp_storage_emulator.exceptions import NotFound

    def answer(request: Any, response: Any, storage: Any) -> None:
        if _holds(request, storage):
            if request.query.get("alt") == ["media"]:
                with suppress(NotFound):
                    stored = storage.get_file_obj(*_target(request, storage))
                    response["X-Goog-Generation"] = str(stored["generation"])
                    _end_as_range(request, int(stored["size"]))
            handler(request, response, storage)
        else:
            message = "At least one of the pre-conditions you specified did not hold."
            errors = [{"reason": "conditionNotMet", "domain": "global", "message": message}]
            response.status = HTTPStatus.PRECONDITION_FAILED
            response.json({"error": {"code": 412, "message": message, "errors": errors}})

    return answer


def _end_as_range(request: Any, size: int) -> None:
    """Rewrite a range of an object's last bytes, as shipped ignored, to one that counts from its start."""
    headers = request._request_handler.headers
    wanted = headers.get("range") or ""
    if wanted.startswith("bytes=-") and size:
        headers.replace_header("range", f"bytes={max(0, size - int(wanted.removeprefix('bytes=-')))}-")


def main() -> None:
    from gcp_storage_emulator import server

    from taxi_platform_tests.support.emulators.child import announce

    logging.disable(logging.ERROR)
    server.HANDLERS = tuple(
        (pattern, {method: _checked(handler) for method, handler in handlers.items()})
        for pattern, handlers in server.HANDLERS
    )
    emulator = server.create_server(LOOPBACK, 0, in_memory=True)
    emulator.start()
    announce(emulator._api._httpd.server_port)
    emulator._api._httpd.request_queue_size = 64
    emulator._api._httpd.socket.listen(64)


if __name__ == "__main__":
    main()
