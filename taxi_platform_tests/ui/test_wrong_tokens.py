"""Wrong tokens are answered late, and whoever has the right one does not notice.

Here a wrong token's answer takes an hour, so that any answer at all shows that nothing waited for one.
"""

import json
import logging
import socket
import threading
from contextlib import ExitStack, closing

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import connect

from taxi_platform.ui import guard as guard_module
from taxi_platform.ui.access import load_access
from taxi_platform.ui.guard import Guard
from taxi_platform_tests.support.system import DEADLINE, wait_for

TOKEN, REPORT_TOKEN = "a-token-for-the-ui-0123456789", "a-token-for-reports-0123456789"
GUESSES, AT_ONCE = 30, 40
BODY = json.dumps({"query": "{ version }"})


class GuardedServer:
    """The guard in front of an app that answers anything, under uvicorn as the UI is."""

    def __init__(self, listener: socket.socket) -> None:
        self.port = listener.getsockname()[1]
        tokens = {"TAXI_UI_TOKEN": TOKEN, "TAXI_REPORT_TOKEN": REPORT_TOKEN}
        self.guard = Guard(PlainTextResponse("let in"), load_access(self.port, tokens))
        self.server = uvicorn.Server(uvicorn.Config(self.guard, log_level="warning", timeout_graceful_shutdown=0))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})

    def send(self, path: str = "/graphql", token: str = "wrong", body: str = BODY, head: str = "") -> socket.socket:
        """Send a request and return its connection, without waiting for the answer."""
        host = f"127.0.0.1:{self.port}"
        lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {token}", "Connection: close"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", *filter(None, [head]), "", body]
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
        connection.sendall("\r\n".join(lines).encode())
        return connection

    def log_in(self, token: str) -> socket.socket:
        return self.send("/login", "", f"token={token}", f"Origin: http://127.0.0.1:{self.port}")

    def wait_until_delayed(self, count: int) -> None:
        wait_for(lambda: self.guard.wrong_tokens == count)


def status(connection: socket.socket) -> int:
    with closing(connection), connection.makefile("rb") as answer:
        return int(answer.readline().split()[1])


@pytest.fixture
def guarded(monkeypatch):
    monkeypatch.setattr(guard_module, "WRONG_TOKEN_SECONDS", 3600)
    monkeypatch.setattr(guard_module, "WRONG_TOKENS_AT_ONCE", AT_ONCE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        guarded = GuardedServer(listener)
        guarded.thread.start()
        yield guarded
        guarded.server.should_exit = True
        guarded.thread.join(DEADLINE)


RIGHT = {
    "bearer": lambda guarded: guarded.send(token=TOKEN),
    "login": lambda guarded: guarded.log_in(TOKEN),
    "report": lambda guarded: guarded.send("/report_asset_check/hello", REPORT_TOKEN),
}


@pytest.mark.fault(85)
@pytest.mark.parametrize("guess", ["bearer", "login", "report"])
def test_a_right_token_is_answered_while_wrong_ones_wait(guarded, guess):
    send = {
        "bearer": guarded.send,
        "login": lambda: guarded.log_in("wrong"),
        "report": lambda: guarded.send("/report_asset_check/hello"),
    }[guess]
    with ExitStack() as guesses:
        for _ in range(GUESSES):
            guesses.enter_context(closing(send()))
        guarded.wait_until_delayed(GUESSES)
        answers = {name: status(right(guarded)) for name, right in RIGHT.items()}
        assert answers == {"bearer": 200, "login": 303, "report": 200}
        assert guarded.guard.wrong_tokens == GUESSES


@pytest.mark.fault(85)
@pytest.mark.parametrize("kind", ["bearer", "login", "half a login", "websocket"])
def test_guesses_whose_clients_hang_up_are_forgotten(guarded, kind, caplog):
    caplog.set_level(logging.WARNING)
    for _ in range(GUESSES):
        if kind == "websocket":
            with pytest.raises((TimeoutError, InvalidHandshake)):
                connect(
                    f"ws://127.0.0.1:{guarded.port}/graphql",
                    origin=f"http://127.0.0.1:{guarded.port}",
                    additional_headers={"Authorization": "Bearer wrong"},
                    open_timeout=0.1,
                    proxy=None,
                )
        elif kind == "half a login":
            host = f"127.0.0.1:{guarded.port}"
            head = f"POST /login HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nContent-Length: 99\r\n\r\ntoken="
            with socket.create_connection(("127.0.0.1", guarded.port)) as connection:
                connection.sendall(head.encode())
        else:
            (guarded.send() if kind == "bearer" else guarded.log_in("wrong")).close()
    assert status(guarded.send(token=TOKEN)) == 200
    guarded.wait_until_delayed(0)
    assert caplog.text == ""


@pytest.mark.fault(85)
def test_no_more_than_so_many_wrong_tokens_wait_and_the_right_one_is_let_in_all_the_same(guarded):
    with ExitStack() as guesses:
        for _ in range(AT_ONCE):
            guesses.enter_context(closing(guarded.send()))
        guarded.wait_until_delayed(AT_ONCE)
        assert status(guarded.send()) == 429
        assert status(guarded.send(token=TOKEN)) == 200
    guarded.wait_until_delayed(0)
    with closing(guarded.send()):
        guarded.wait_until_delayed(1)
