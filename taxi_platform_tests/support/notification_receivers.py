"""A web hook and a mail server on this machine that record what they receive, for testing notifications."""

import email
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from taxi_platform_tests.support.system import free_port


@dataclass
class Hook:
    """A web hook and its requests, as (path, headers, JSON).

    The path `/500` answers that status, and so on; `/slow` waits for 3 s before it answers, any other for `seconds`.
    While the hook is `broken` it answers 503 to all.
    """

    address: str
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    seconds: float = 0
    broken: bool = False

    def messages(self, path: str = "/hook") -> list[str]:
        return [body["message"] for requested, _, body in self.requests if requested == path]


@contextmanager
def web_hook() -> Iterator[Hook]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path = self.path.partition("?")[0]
            hook.requests.append((path, dict(self.headers), body))
            time.sleep(hook.seconds or (3 if path == "/slow" else 0))
            name = path.rpartition("/")[2]
            self.send_response(503 if hook.broken else int(name) if name.isdecimal() else 200)
            if name in ("307", "308"):
                self.send_header("Location", f"http://{hook.address}/elsewhere")
            self.end_headers()

        do_GET = do_POST

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    hook = Hook(f"127.0.0.1:{server.server_port}")
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class MailBox:
    """The mails that arrived. Its server requires the user `taxi` with `password`."""

    address: str
    password: str
    mails: list[Message] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"mailto://taxi:{self.password}@{self.address}?from=taxi@example.org&to=data@example.org&mode=insecure"


@contextmanager
def mail_box(password: str) -> Iterator[MailBox]:
    """Serve SMTP until the block ends."""

    class Handler:
        async def handle_DATA(self, server, session, envelope):
            box.mails.append(email.message_from_bytes(envelope.content, policy=default))
            return "250 OK"

    def login(server, session, envelope, mechanism, credentials):
        is_taxi = (credentials.login, credentials.password) == (b"taxi", password.encode())
        return AuthResult(success=is_taxi, handled=False)  # "handled" would mean that the answer was sent here

    port = free_port()
    box = MailBox(f"127.0.0.1:{port}", password)
    controller = Controller(
        Handler(), "127.0.0.1", port, authenticator=login, auth_required=True, auth_require_tls=False
    )
    controller.start()
    try:
        yield box
    finally:
        controller.stop()
