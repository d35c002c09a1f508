"""Around each request: an id, one access log line with the route's template (never the path), metrics, safe headers."""

import re
import secrets
import time
from typing import Any

import structlog
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import Counter, Histogram

log = structlog.get_logger(__name__)

REQUESTS = Counter("annotomy_http_requests_total", "Requests answered", ["method", "route", "status"])
SECONDS = Histogram("annotomy_http_request_seconds", "Time from request to the end of its answer", ["method", "route"])

_REQUEST_ID = re.compile(rb"^[A-Za-z0-9._-]{1,64}$")


def request_context(app: ASGIApp) -> ASGIApp:
    """Gives the request an id (the client's own `X-Request-ID` when it is harmless) and accounts for its answer."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given.decode() if _REQUEST_ID.match(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers: list[tuple[bytes, bytes]] = list(message.get("headers", []))
                headers.append((b"x-request-id", request_id.encode()))
                headers.append((b"x-content-type-options", b"nosniff"))
                message["headers"] = headers
            await send(message)

        try:
            await app(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - started
            route = _route(scope)
            REQUESTS.labels(scope["method"], route, str(status)).inc()
            SECONDS.labels(scope["method"], route).observe(seconds)
            if not route.startswith(("/livez", "/readyz", "/metrics")):
                log.info(
                    "request.answered",
                    request_id=request_id,
                    method=scope["method"],
                    route=route,
                    status=status,
                    milliseconds=round(seconds * 1000, 2),
                )

    return handle


def _route(scope: Any) -> str:
    return str(scope.get("path_template") or "unmatched")
