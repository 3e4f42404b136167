"""The guard in front of Dagster's UI, which has no login and obeys any page that the browser has open.

Dagster's webserver executes a mutation sent by GET or in the URL of a form post, and checks neither Host nor Origin:
an `<img>` on any page could wipe an asset, and a name that resolves to 127.0.0.1 could read the answers. The rules
here decide which requests reach Dagster; its responses pass unchanged except for four added headers.

`X-Forwarded-…` headers are never trusted. The browser's own Origin says whether it uses https.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from urllib.parse import parse_qs, quote

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taxi_platform.ui.access import Access

BODY_BYTES = 10_000_000  # launching every month of every dataset, each by name, takes about 20 kB
LOGIN_BYTES = 4_096
MONITORING_PATHS = ("/health", "/metrics")
TRUSTED = "taxi.trusted"
"""In the scope of a request for /health: whether it may be told what is wrong."""
LOGIN_SECONDS = 7 * 24 * 3600
WRONG_TOKEN_SECONDS = 1.0
WRONG_TOKENS_AT_ONCE = 100
"""How many refusals of a wrong token may be delayed at a time: each holds a connection open."""

RESPONSE_HEADERS = {"x-frame-options": "DENY", "x-content-type-options": "nosniff", "referrer-policy": "same-origin"}
OWN_HEADERS = {
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


class Guard:
    """ASGI middleware that applies one rule after the other: each returns a response, or None to let a request pass."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        # Browsers send a cookie to every port of a host. The port in its name keeps two webservers' logins apart.
        self._cookie = f"taxi_ui_{access.port}"
        self.wrong_tokens = 0
        """Of wrong tokens, how many are being delayed now."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            response = await self._respond(HTTPConnection(scope), receive)
            await (response or self._app)(scope, receive, _with_headers(send))

    async def _respond(self, request: HTTPConnection, receive: Receive) -> Response | None:
        if refusal := self._check_host(request) or self._check_origin(request) or self._check_body(request):
            return refusal
        path = request.scope["path"]
        if path.startswith("/report_asset_"):
            return await self._check_report(request, receive)
        if path == "/login" and self._access.token:
            return await self._log_in(request, receive)
        if path in MONITORING_PATHS and not _is_read(request):
            return _refusal(405, f"{_method(request)} is not allowed here. Read this page by GET.")
        if path == "/health":
            return await self._check_health(request, receive)
        if path == "/metrics" and (self._access.metrics_token or self._access.closes_metrics):
            return await self._check_metrics(request, receive)
        return self._check_method(request) or await self._check_login(request, receive)

    def _check_host(self, request: HTTPConnection) -> Response | None:
        """Allow only known names: any other one that resolves to 127.0.0.1 would make its owner's page same-origin."""
        host = _header(request, "host") or ""
        if host.lower() in self._access.hosts:
            return None
        return _refusal(403, f"Host {host!r} is not allowed. If it is this server's name, add it to TAXI_UI_HOSTS.")

    def _check_origin(self, request: HTTPConnection) -> Response | None:
        """Refuse what another site's page sends, except reads: that page cannot see the response.

        Browsers send the page's Origin with every POST and websocket handshake, and the page cannot prevent it. A POST
        without Origin therefore comes from a program and passes. On /graphql it must also be JSON, which a page cannot
        send to another site without a preflight that nobody here answers. A websocket without Origin is refused because
        only the UI needs websockets; a login without Origin because programs send the token as Bearer.
        """
        if _is_read(request):
            return None
        origin = _header(request, "origin")
        scheme, _, host = (origin or "").lower().partition("://")
        if origin is None:
            allowed = _method(request) != "WEBSOCKET" and request.scope["path"] != "/login"
        else:
            allowed = scheme in {"http", "https"} and host in self._access.hosts
        if allowed and _header(request, "sec-fetch-site") in {None, "same-origin", "none"}:
            return None
        return _refusal(403, f"Origin {origin!r} is not allowed. If it is this server's, add it to TAXI_UI_HOSTS.")

    def _check_body(self, request: HTTPConnection) -> Response | None:
        if "transfer-encoding" in request.headers:
            return _refusal(411, "The body has no Content-Length. Send it in one piece.")
        limit = LOGIN_BYTES if request.scope["path"] == "/login" else BODY_BYTES
        if int(_header(request, "content-length") or 0) > limit:  # uvicorn answers 400 if it is not a number
            return _refusal(413, f"The body is too long. Send at most {limit:,} bytes.")
        return None

    def _check_method(self, request: HTTPConnection) -> Response | None:
        """Allow reads everywhere but on /graphql, where GET executes mutations; there, JSON by POST and websockets."""
        method, on_graphql = _method(request), request.scope["path"] == "/graphql"
        if method == "WEBSOCKET" or (_is_read(request) and not on_graphql):
            return None
        if method != "POST" or not on_graphql:
            return _refusal(405, f"{method} is not allowed here. Send queries to /graphql, as JSON by POST.")
        # The exact media type: Dagster accepts "text/plain; application/json", which a page may send to any site.
        if (_header(request, "content-type") or "").split(";")[0].strip().lower() != "application/json":
            return _refusal(415, "/graphql accepts only JSON. Send Content-Type: application/json.")
        return None

    async def _check_report(self, request: HTTPConnection, receive: Receive) -> Response | None:
        """Reports write lineage. They have a token of their own, so that their senders need no access to the UI."""
        candidate, token = _header(request, "x-taxi-report-token") or _bearer(request), self._access.report_token
        if _is_token(candidate, token):
            return None
        refusal = _refusal(403, "Reports need TAXI_REPORT_TOKEN, as Authorization: Bearer or X-Taxi-Report-Token.")
        return await self._delay(refusal, receive) if candidate and token else refusal

    async def _check_health(self, request: HTTPConnection, receive: Receive) -> Response | None:
        """Let everybody pass, so that any load balancer may ask; mark those who may be told what is wrong."""
        access, candidate = self._access, _bearer(request)
        has_token = _is_token(candidate, access.metrics_token) or _is_token(candidate, access.token)
        request.scope[TRUSTED] = access.is_open or has_token or bool(access.token and self._is_logged_in(request))
        if candidate and not has_token and not access.is_open:
            return await self._delay(_refusal(401, "The token is wrong.", {"www-authenticate": "Bearer"}), receive)
        return None

    async def _check_metrics(self, request: HTTPConnection, receive: Receive) -> Response | None:
        """With TAXI_METRICS_TOKEN, that token alone opens /metrics; without, `_check_login` treats it as any page."""
        if self._access.closes_metrics:
            return _refusal(403, "Metrics are closed: TAXI_UI_HOSTS is set and TAXI_METRICS_TOKEN is not.")
        candidate = _bearer(request)
        if _is_token(candidate, self._access.metrics_token):
            return None
        text = "Metrics need TAXI_METRICS_TOKEN, as Authorization: Bearer."
        refusal = _refusal(401, text, {"www-authenticate": "Bearer"})
        return await self._delay(refusal, receive) if candidate else refusal

    async def _check_login(self, request: HTTPConnection, receive: Receive) -> Response | None:
        """Ask for the token if one is set. /server_info, a health check, is open: it shows only versions."""
        path = request.scope["path"]
        if not self._access.token or path == "/server_info" or self._is_logged_in(request):
            return None
        candidate = _bearer(request)
        if _is_token(candidate, self._access.token):
            return None
        refusal = self._ask_for_login(request)
        return await self._delay(refusal, receive) if candidate else refusal

    def _ask_for_login(self, request: HTTPConnection) -> Response:
        if _is_read(request) and "text/html" in (_header(request, "accept") or ""):
            query = request.scope["query_string"].decode("latin-1")
            page = quote(f"{request.scope['path']}?{query}".removesuffix("?"), safe="")
            return RedirectResponse(f"/login?next={page}", 303, OWN_HEADERS)
        text = "Not logged in. Open /login, or send TAXI_UI_TOKEN as Authorization: Bearer."
        return _refusal(401, text, {"www-authenticate": "Bearer"})

    async def _log_in(self, request: HTTPConnection, receive: Receive) -> Response:
        if _method(request) != "POST":
            return HTMLResponse(LOGIN_PAGE.format("Token"), 200, OWN_HEADERS)
        try:
            form = parse_qs((await Request(request.scope, receive).body()).decode("latin-1"))
        except ClientDisconnect:
            form = {}
        candidate = form.get("token", [""])[0].strip()
        if not _is_token(candidate, self._access.token):
            refusal = HTMLResponse(LOGIN_PAGE.format("That is not the token."), 403, OWN_HEADERS)
            return await self._delay(refusal, receive) if candidate else refusal
        # A path on this server: `//host` and `/\host` would lead to another site.
        next_page = "/" + request.query_params.get("next", "").lstrip("/\\")
        response = RedirectResponse(next_page, 303, OWN_HEADERS)
        expiry = str(int(time.time()) + LOGIN_SECONDS)
        response.set_cookie(
            self._cookie,
            f"{expiry}.{self._signature(expiry)}",
            max_age=LOGIN_SECONDS,
            secure=request.headers["origin"].lower().startswith("https:"),
            httponly=True,
        )
        return response

    def _signature(self, expiry: str) -> str:
        """A value that only the holder of the token can compute, and that does not reveal the token."""
        return hmac.new(self._access.token.encode(), f"{self._cookie} {expiry}".encode(), "sha256").hexdigest()

    def _is_logged_in(self, request: HTTPConnection) -> bool:
        expiry, _, signature = request.cookies.get(self._cookie, "").partition(".")
        is_ours = hmac.compare_digest(signature.encode(), self._signature(expiry).encode())
        return is_ours and int(expiry) > time.time()

    async def _delay(self, refusal: Response, receive: Receive) -> Response:
        """Hold a wrong token's refusal back, which slows a guesser down and nobody else.

        Nothing is locked, so each guess waits for itself alone, and one whose client hangs up stops waiting. A right
        token is never held back, however many wrong ones are: what makes guessing hopeless is the token's length.
        """
        if self.wrong_tokens >= WRONG_TOKENS_AT_ONCE:
            text = "The token is wrong, and too many wrong ones are being answered. Try again in a second."
            return _refusal(429, text, {"retry-after": "1"})
        self.wrong_tokens += 1
        try:
            await asyncio.wait_for(_hung_up(receive), WRONG_TOKEN_SECONDS)
        except TimeoutError:
            pass
        finally:
            self.wrong_tokens -= 1
        return refusal


async def _hung_up(receive: Receive) -> None:
    """Wait until the client has closed the connection; a body that is still arriving is dropped."""
    while not (await receive())["type"].endswith(".disconnect"):
        pass


def _with_headers(send: Send) -> Send:
    """Add the headers that keep responses out of frames, of type guessing and of other sites' logs."""

    async def send_with_headers(message: Message) -> None:
        if message["type"].endswith("http.response.start"):
            headers = MutableHeaders(scope=message)
            headers.update(RESPONSE_HEADERS)
            # Browsers enforce every policy they receive: a second one tightens Dagster's and loosens nothing.
            headers.append("content-security-policy", "frame-ancestors 'none'")
        await send(message)

    return send_with_headers


def _refusal(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{text}\n", status, {**OWN_HEADERS, **(headers or {})})


def _header(request: HTTPConnection, name: str) -> str | None:
    """All values of a header, joined: a repeated Host or Origin gives a value that no rule allows."""
    values = request.headers.getlist(name)
    return ", ".join(values) if values else None


def _method(request: HTTPConnection) -> str:
    """The HTTP method; WEBSOCKET for a websocket handshake."""
    return request.scope.get("method", "WEBSOCKET")


def _is_read(request: HTTPConnection) -> bool:
    return _method(request) in {"GET", "HEAD"}


def _bearer(request: HTTPConnection) -> str:
    scheme, _, token = (_header(request, "authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _is_token(candidate: str, token: str) -> bool:
    """Whether the candidate is the token, compared in constant time; nothing is if no token is set."""
    return hmac.compare_digest(candidate.encode(), token.encode()) and bool(token)
