"""A proxy on this machine that does to the requests of a test what networks and busy services do to real ones.

It stands in front of one server, whose address it replaces by its own wherever an answer names it: so what the server
sends its clients to, such as an upload in chunks, leads through the proxy too. A plan decides what a request meets.
"""

from __future__ import annotations

import http.client
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Lock, Thread
from urllib.parse import urlsplit

from taxi_platform_tests.support.emulators import LOOPBACK

BUSY = ("429", "500", "503")
FAULTS = {
    "reset": "the connection is reset before the server has seen the request",
    **{status: f"{status} with Retry-After, and the server has seen nothing" for status in BUSY},
    "lost": "the server has done it, and the connection is reset instead of its answer",
    "repeated": "the server gets the request twice, and the second answer counts",
    "slow": "the answer's body comes in twenty pieces with pauses",
    "silent": "half of the answer's body comes, and then nothing until the client hangs up",
    "cut": "half of the answer's body comes, and then the connection is closed",
}
"""Name → what happens."""

IN_BODY = ("slow", "silent", "cut")
HOP_BY_HOP = {"host", "connection", "keep-alive", "transfer-encoding", "content-length"}
SERVER_SECONDS = 60
PIECES, PAUSE_SECONDS = 20, 0.005


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: Message = field(repr=False, compare=False)
    body: bytes = field(repr=False)


Plan = Callable[[Asked], str | None]
"""The fault that a request meets, None for none; asked in the order in which requests come."""


def scripted(faults: Iterable[str | None], matching: Callable[[Asked], bool] = lambda asked: True) -> Plan:
    """One fault after the other, each for the next request that matches; then none."""
    left = iter(faults)
    return lambda asked: next(left, None) if matching(asked) else None


def every_other(fault: str) -> Plan:
    """Every other attempt of a request, beginning with the first, meets the fault; requests differ by their content."""
    attempts: Counter[Asked] = Counter()

    def plan(asked: Asked) -> str | None:
        attempts[asked] += 1
        return fault if attempts[asked] % 2 else None

    return plan


def seeded(seed: str, share: float) -> Plan:
    """A share of all requests meets a fault, any of them."""
    random, names = Random(seed), list(FAULTS)
    return lambda asked: random.choice(names) if random.random() < share else None


@dataclass
class FaultProxy:
    """What it has seen, in order, each with the fault that really happened: a body without bytes cannot be cut."""

    url: str
    plan: Plan
    delay: float = 0
    """Seconds before each request is passed on, of all requests that are under way at the same time."""
    log: list[tuple[Asked, str | None]] = field(default_factory=list)

    @property
    def injected(self) -> Counter[str]:
        return Counter(fault for _, fault in self.log if fault)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def shutdown_request(self, request):
        """Close only: to say goodbye first would make an ordinary end of every reset."""
        self.close_request(request)

    def handle_error(self, request, client_address):
        """Report nothing about clients that hang up while they are answered."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def fault_proxy(upstream: str, plan: Plan = lambda asked: None) -> Iterator[FaultProxy]:
    """Serve on a free port what `upstream`, an http URL without a path, answers to requests that the plan lets pass."""
    address, one_at_a_time = urlsplit(upstream).netloc, Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_):
            pass

        def pass_on(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.command, self.path, self.headers, body)
            time.sleep(proxy.delay)
            with one_at_a_time:
                fault, place = proxy.plan(asked), len(proxy.log)
                proxy.log.append((asked, fault))
            if fault in BUSY:
                self.start(int(fault), [("Retry-After", "1"), ("Content-Length", "4")])
                self.wfile.write(b"busy" if asked.method != "HEAD" else b"")
                return
            for _ in range({"reset": 0, "repeated": 2}.get(fault, 1)):
                status, headers, body = forwarded(asked)
            if fault in ("reset", "lost"):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                return
            if fault in IN_BODY and len(body) < 2:
                proxy.log[place] = (asked, None)
            self.start(status, headers)
            self.send(body, fault)

        do_HEAD = do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

        def start(self, status, headers):
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()

        def send(self, body, fault):
            step = max(1, -(-len(body) // {"slow": PIECES, "silent": 2, "cut": 2}.get(fault, 1)))
            for at in range(0, len(body), step):
                self.wfile.write(body[at : at + step])
                if fault == "slow":
                    time.sleep(PAUSE_SECONDS)
                elif fault in ("silent", "cut"):
                    self.close_connection = True
                    if fault == "silent":
                        self.rfile.read(1)  # comes back when the client hangs up
                    break

    def forwarded(asked):
        """What the server answers: status, headers and body."""
        with closing(http.client.HTTPConnection(address, timeout=SERVER_SECONDS)) as connection:
            kept = {name: value for name, value in asked.headers.items() if name.lower() not in HOP_BY_HOP}
            connection.request(asked.method, asked.path, asked.body or None, kept)
            answer = connection.getresponse()
            body, answered = answer.read(), [(n, v) for n, v in answer.getheaders() if n.lower() not in HOP_BY_HOP]
            if "json" in answer.getheader("Content-Type", ""):
                body = body.replace(address.encode(), own.encode())
            length = answer.getheader("Content-Length", "0") if asked.method == "HEAD" else str(len(body))
            headers = [(name, value.replace(address, own)) for name, value in answered]
            return answer.status, [*headers, ("Content-Length", length)], body

    server = _Server((LOOPBACK, 0), Handler)
    own = f"{LOOPBACK}:{server.server_port}"
    proxy = FaultProxy(f"http://{own}", plan)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
