"""What stands before Dagster's UI, which by itself has no login and obeys every page that a browser has open.

Dagster's webserver executes a mutation that comes by GET or in the URL of a form post, and looks neither at Host nor at
Origin: an `<img>` on any page could wipe an asset, and a name that resolves to 127.0.0.1 could read the answers. Here
are the rules on who is let through; whatever is let through, Dagster answers unchanged but for four headers.

Nothing here believes `X-Forwarded-…`: whether the browser came by https, its own Origin says.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote

from taxi_platform.settings import listed
from taxi_platform.trips.errors import SettingError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
TOKEN_PATTERN = re.compile(r"[!-~]{16,}")
BODY_BYTES = 10_000_000  # a launch of every month of every dataset, each by name, is some 20 kB
LOGIN_BYTES = 4_096
LOGIN_SECONDS = 7 * 24 * 3600
WRONG_TOKEN_SECONDS = 1.0

HARDENING = {"x-frame-options": "DENY", "x-content-type-options": "nosniff", "referrer-policy": "same-origin"}
OWN_HEADERS = {
    "content-type": "text/plain; charset=utf-8",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
}
LOGIN_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Log in · taxi_platform</title>
<style>:root {{ color-scheme: light dark }} form {{ font: 16px sans-serif; margin: 20vh auto; width: 20em }}
input, button {{ font: inherit; padding: .4em; box-sizing: border-box; width: 100%; margin-top: .5em }}</style>
<form method="post"><label for="token">{}</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button></form></html>
"""


@dataclass(frozen=True)
class Access:
    """Who may reach the UI, and with what; an empty token is none."""

    port: int
    hosts: frozenset[str]
    token: str = field(repr=False)
    report_token: str = field(repr=False)
    read_only: bool


def load_access(port: int, environment: Mapping[str, str] = os.environ) -> Access:
    """Read TAXI_UI_HOSTS, TAXI_UI_TOKEN, TAXI_UI_READ_ONLY and TAXI_REPORT_TOKEN; raises `SettingError`."""
    # A browser leaves the port out of Host and Origin where it is http's own.
    own = [f"{name}:{port}".removesuffix(":80") for name in LOOPBACK_NAMES]
    further = listed(environment.get("TAXI_UI_HOSTS", "").lower())
    return Access(
        port=port,
        hosts=frozenset([*own, *(host.removeprefix("https://").rstrip("/") for host in further)]),
        token=_token("TAXI_UI_TOKEN", environment),
        report_token=_token("TAXI_REPORT_TOKEN", environment),
        read_only=environment.get("TAXI_UI_READ_ONLY", "").strip().lower() not in {"", "0", "false"},
    )


def _token(name: str, environment: Mapping[str, str]) -> str:
    token = environment.get(name, "").strip()
    if token and not TOKEN_PATTERN.fullmatch(token):
        raise SettingError(
            f"{name} is short, or holds a space or a letter beyond ASCII.",
            "It takes 16 characters or more; `openssl rand -hex 24` makes some.",
        )
    return token


@dataclass(frozen=True)
class Request:
    """The part of an ASGI scope that the rules look at; a websocket's handshake is of the method WEBSOCKET."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]

    @classmethod
    def of(cls, scope: Message) -> Request:
        # Repeated headers are joined: a second Host or Origin makes a value that no rule lets through.
        headers: dict[str, str] = {}
        for name, value in ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]):
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return cls(scope.get("method", "WEBSOCKET"), scope["path"], scope["query_string"].decode("latin-1"), headers)

    @property
    def reads(self) -> bool:
        return self.method in {"GET", "HEAD"}

    @property
    def bearer(self) -> str:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""


class Answer:
    """An answer of the guard's own: a refusal in plain text, the login page, a redirection."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        self._status, self._body = status, f"{text}\n".encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._headers = OWN_HEADERS | named | {"content-length": str(len(self._body))}

    async def send(self, request: Request, send: Send) -> None:
        kind = "websocket.http.response" if request.method == "WEBSOCKET" else "http.response"
        headers = [(name.encode(), value.encode("latin-1")) for name, value in self._headers.items()]
        await send({"type": f"{kind}.start", "status": self._status, "headers": headers})
        await send({"type": f"{kind}.body", "body": self._body})


def _hardened(send: Send) -> Send:
    """Add the headers that keep every answer out of frames, of guessed types and of other sites' logs."""

    async def send_hardened(message: Message) -> None:
        if message["type"].endswith("http.response.start"):
            kept = [(name, value) for name, value in message["headers"] if name.decode() not in HARDENING]
            ours = [(name.encode(), value.encode()) for name, value in HARDENING.items()]
            # Browsers enforce every policy they are sent: a second one adds to Dagster's and loosens nothing.
            ours.append((b"content-security-policy", b"frame-ancestors 'none'"))
            message = {**message, "headers": kept + ours}
        await send(message)

    return send_hardened


class Guard:
    """ASGI: asks one rule after the other; each gives an answer of its own, or None to let pass."""

    def __init__(self, app: App, access: Access) -> None:
        self._app = app
        self._access = access
        # A browser sends a cookie to every port of a host; named by port, two webservers do not log each other out.
        self._cookie = f"taxi_ui_{access.port}"
        self._one_guess = asyncio.Lock()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        request = Request.of(scope)
        answer = await self._answer(request, receive)
        if answer:
            return await answer.send(request, _hardened(send))
        return await self._app(scope, receive, _hardened(send))

    async def _answer(self, request: Request, receive: Receive) -> Answer | None:
        refusal = self._host(request) or self._page(request) or self._body(request)
        if refusal:
            return refusal
        if request.path.startswith("/report_asset_"):
            return await self._report(request)
        if request.path == "/login" and self._access.token:
            return await self._login(request, receive)
        return self._method(request) or await self._visitor(request)

    def _host(self, request: Request) -> Answer | None:
        """Only our own names: any other that resolves to 127.0.0.1 would make its owner's page count as ours."""
        host = request.headers.get("host", "")
        if host.lower() in self._access.hosts:
            return None
        return Answer(403, f"Host {host!r} is not allowed. If it is this server's, add it to TAXI_UI_HOSTS.")

    def _page(self, request: Request) -> Answer | None:
        """Refuse what another site's page sends, except reading, for that page does not get to see the answer.

        A browser names the page's Origin with every POST and every websocket's handshake; the page cannot prevent it.
        So a POST without Origin comes from a program and may pass. On /graphql it must be JSON as well, which a page
        could not send to another site: its browser asks for leave first, and nobody here gives it. A websocket
        without Origin is refused since only the UI needs one, a login without since programs send the token as Bearer.
        """
        origin = request.headers.get("origin")
        scheme, _, host = (origin or "").lower().partition("://")
        if origin is None:
            own = request.method != "WEBSOCKET" and request.path != "/login"
        else:
            own = scheme in {"http", "https"} and host in self._access.hosts
        if request.reads or (own and request.headers.get("sec-fetch-site", "none") in {"same-origin", "none"}):
            return None
        return Answer(403, f"Origin {origin!r} is not allowed. If it is this server's, add it to TAXI_UI_HOSTS.")

    def _body(self, request: Request) -> Answer | None:
        if "transfer-encoding" in request.headers:
            return Answer(411, "A body needs a Content-Length. Send it in one piece.")
        limit = LOGIN_BYTES if request.path == "/login" else BODY_BYTES
        if int(request.headers.get("content-length", "0")) > limit:  # uvicorn answers 400 to what is no number
            return Answer(413, f"The body is too long. Send {limit:,} bytes or fewer.")
        return None

    def _method(self, request: Request) -> Answer | None:
        """Reading everywhere but on /graphql, where GET executes mutations: there, JSON by POST, and websockets."""
        if request.method == "WEBSOCKET" or (request.reads and request.path != "/graphql"):
            return None
        if request.method != "POST" or request.path != "/graphql":
            return Answer(405, f"{request.method} is not allowed here. Queries go to /graphql, as JSON by POST.")
        # The media type exactly: "text/plain; application/json" satisfies Dagster, and a page may send it to any site.
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return Answer(415, "/graphql takes JSON only. Send Content-Type: application/json.")
        return None

    async def _report(self, request: Request) -> Answer | None:
        """Reports write lineage. Their token is their own, so that who sends them need not be let into the UI."""
        given, token = request.headers.get("x-taxi-report-token") or request.bearer, self._access.report_token
        if token and await self._matches(given, token):
            return None
        return Answer(403, "A report needs TAXI_REPORT_TOKEN, as Authorization: Bearer or X-Taxi-Report-Token.")

    async def _visitor(self, request: Request) -> Answer | None:
        """Nobody without the token, if there is one; /server_info, a health check, tells versions only."""
        if not self._access.token or request.path == "/server_info" or self._logged_in(request):
            return None
        if await self._matches(request.bearer, self._access.token):
            return None
        if request.reads and "text/html" in request.headers.get("accept", ""):
            wanted = quote(f"{request.path}?{request.query}".removesuffix("?"), safe="")
            return Answer(303, "Log in first.", location=f"/login?next={wanted}")
        text = "Not logged in. Open /login, or send TAXI_UI_TOKEN as Authorization: Bearer."
        return Answer(401, text, www_authenticate="Bearer")

    async def _login(self, request: Request, receive: Receive) -> Answer:
        if request.method != "POST":
            return Answer(200, LOGIN_PAGE.format("Token"), content_type="text/html; charset=utf-8")
        given = parse_qs(await _read(receive)).get("token", [""])[0]
        if not await self._matches(given.strip(), self._access.token):
            return Answer(403, LOGIN_PAGE.format("That is not the token."), content_type="text/html; charset=utf-8")
        until = str(int(time.time()) + LOGIN_SECONDS)
        cookie = f"{self._cookie}={until}.{self._stamp(until)}; Path=/; Max-Age={LOGIN_SECONDS}; HttpOnly; SameSite=Lax"
        secure = "; Secure" if request.headers["origin"].lower().startswith("https:") else ""
        return Answer(303, "Logged in.", location=_own_path(request.query), set_cookie=cookie + secure)

    def _stamp(self, until: str) -> str:
        """What only the holder of the token can compute, and what does not tell the token."""
        return hmac.new(self._access.token.encode(), f"{self._cookie} {until}".encode(), "sha256").hexdigest()

    def _logged_in(self, request: Request) -> bool:
        for cookie in request.headers.get("cookie", "").split(";"):
            name, _, value = cookie.strip().partition("=")
            until, _, stamp = value.partition(".")
            if name == self._cookie and hmac.compare_digest(stamp.encode(), self._stamp(until).encode()):
                return int(until) > time.time()
        return False

    async def _matches(self, given: str, token: str) -> bool:
        """One guess after the other, and a wrong one takes a second, so that guessing in parallel gains nothing."""
        if not given:
            return False
        async with self._one_guess:
            right = hmac.compare_digest(given.encode(), token.encode())
            if not right:
                await asyncio.sleep(WRONG_TOKEN_SECONDS)
            return right


def _own_path(query: str) -> str:
    """The page that was asked for, as a path of ours: `//host` and `/\\host` would lead to another site."""
    wanted = parse_qs(query).get("next", ["/"])[0]
    return "/" + quote(wanted.lstrip("/\\"), safe="/?&=%:,~@+;()[]*!'$")


async def _read(receive: Receive) -> str:
    """A body that is known to be short."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body.decode("latin-1")
