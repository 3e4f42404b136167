"""`/health` and `/metrics`, in front of Dagster's UI; who may read them is the guard's decision."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from taxi_platform.ui.guard import OWN_HEADERS, TRUSTED
from taxi_platform.ui.health import HealthChecks
from taxi_platform.ui.metrics import Metrics


class Monitoring:
    """ASGI middleware that answers the two paths and passes everything else on."""

    def __init__(self, app: ASGIApp, checks: HealthChecks, metrics: Metrics) -> None:
        self._app, self._checks, self._metrics = app, checks, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answers = {"/health": self._health, "/metrics": self._exposition}
        if scope["type"] == "http" and scope["path"] in answers:
            response = await answers[scope["path"]](Request(scope))
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _health(self, request: Request) -> Response:
        """200 or 503. What is wrong is told only to those whom the guard trusts."""
        health = await self._checks.look()
        status = 200 if health.is_healthy else 503
        if not request.scope.get(TRUSTED):
            return Response(None, status, OWN_HEADERS)
        return JSONResponse(health.as_json(), status, OWN_HEADERS)

    async def _exposition(self, request: Request) -> Response:
        health, _ = await asyncio.gather(self._checks.look(), self._metrics.refresh())
        content, content_type = self._metrics.exposition(health, request.headers.get("accept", ""))
        return Response(content, 200, {**OWN_HEADERS, "content-type": content_type})
