"""A small web server on this machine that misbehaves as its pages say, for testing sources."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

S3_DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


@dataclass
class Page:
    """What one path answers. `first` holds answers given before this one, each once and to any method."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = None
    modified: str | None = None
    cut: list[int] = field(default_factory=list)
    """Body bytes after which the connection breaks, for one GET after the other; then no more."""
    drip: float = 0
    """Seconds between single bytes."""
    delay: float = 0
    """Seconds before any answer."""
    ranges: bool = True
    length: int | None = None
    """A wrong Content-Length; -1 for none at all."""
    chunked: bool = False
    no_head: int = 0
    """The status a HEAD gets instead."""
    first: list["Page"] = field(default_factory=list)
    sent: int = 0
    """Body bytes that were sent so far, in all answers."""


@dataclass
class Web:
    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def methods(self) -> list[str]:
        return [method for method, _, _ in self.requests]


@contextmanager
def serving(tls: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> Iterator[Web]:
    """Serve `web.pages` (by path, without query) on a free port; `web.requests` logs what was asked."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer(with_body=False)

        def do_GET(self):
            self.answer(with_body=True)

        def answer(self, with_body):
            path = self.path.partition("?")[0]
            web.requests.append((self.command, self.path, dict(self.headers)))
            page = web.pages.get(path, Page(b"Not Found", 404))
            if page.first:
                page = page.first.pop(0)
            time.sleep(page.delay)
            status = page.status if with_body or not page.no_head else page.no_head
            body, start = page.body, 0
            headers = {"ETag": page.etag, "Last-Modified": page.modified, **page.headers}
            wanted = self.headers.get("Range")
            fresh = self.headers.get("If-Range") in (None, page.etag, page.modified)
            if wanted and page.ranges and fresh and status == 200:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, stop = int(first), int(last) + 1 if last else len(body)
                headers["Content-Range"] = f"bytes {start}-{min(stop, len(body)) - 1}/{len(body)}"
                status, body = 206, body[start:stop]
            self.send_response_only(status)
            if "Date" not in headers:
                self.send_header("Date", self.date_time_string())
            if page.chunked:
                headers["Transfer-Encoding"] = "chunked"
            elif page.length != -1:
                headers["Content-Length"] = str(len(body) if page.length is None else page.length)
            for name, value in headers.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            if not with_body:
                return
            cut = page.cut.pop(0) if page.cut else None
            try:
                self.send(body if cut is None else body[:cut], page)
                if page.chunked and cut is None:
                    self.wfile.write(b"0\r\n\r\n")
                self.wfile.flush()
            except OSError:
                pass
            if cut is not None or page.length is not None:
                self.close_connection = True

        def send(self, body, page):
            step = 1 if page.drip else max(1, len(body) // 3)
            for at in range(0, len(body), step):
                piece = body[at : at + step]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if page.chunked else piece)
                page.sent += len(piece)
                if page.drip:
                    self.wfile.flush()
                    time.sleep(page.drip)

    server = ThreadingHTTPServer((address, 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    server.block_on_close = False
    web = Web(f"http://{address}:{server.server_port}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()


Answer = tuple[bytes, bool]
"""The bytes sent, and whether the connection stays open afterwards, for a third of a second at most."""


@contextmanager
def answering(*answers: Answer) -> Iterator[str]:
    """The address of a server that sends one answer after the other, one a connection, and the last one for ever."""

    def serve() -> None:
        left = list(answers)
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(1)
                asked = b""
                while b"\r\n\r\n" not in asked and (piece := connection.recv(1 << 16)):
                    asked += piece
                data, stays = left.pop(0) if len(left) > 1 else left[0]
                connection.sendall(data)
                connection.settimeout(0.3)
                while stays and connection.recv(1 << 16):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
