"""Around each request: an id, one access log line with the route's template (never the path), metrics, safe headers,

and a body that keeps coming. `scope["state"]["until_answered"]` holds what is to be let go when the answer is out."""

import re
import secrets
import time
from contextlib import ExitStack
from typing import Any

import structlog
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import Counter, Histogram

from annotomy.http.deadlines import timely

log = structlog.get_logger(__name__)

REQUESTS = Counter("annotomy_http_requests_total", "Requests answered", ["method", "route", "status"])
SECONDS = Histogram("annotomy_http_request_seconds", "Time from request to the end of its answer", ["method", "route"])

SAFE_HEADERS = [
    (b"cache-control", b"private, no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
"""For answers that do not say otherwise: data is personal, belongs into no shared cache and into no other site's page."""
STRICT_TRANSPORT = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
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
        until_answered = ExitStack()
        scope["state"]["until_answered"] = until_answered

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers: list[tuple[bytes, bytes]] = list(message.get("headers", []))
                given_names = {name.lower() for name, _ in headers}
                headers += [header for header in SAFE_HEADERS if header[0] not in given_names]
                if scope["scheme"] == "https":
                    headers.append(STRICT_TRANSPORT)
                headers.append((b"x-request-id", request_id.encode()))
                message["headers"] = headers
            await send(message)

        try:
            await app(scope, timely(receive), answer)
        finally:
            until_answered.close()
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
