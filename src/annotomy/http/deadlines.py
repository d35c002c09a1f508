"""Deadlines of a request: its header within seconds, its body at more than a crawl.

uvicorn waits for a header for ever, so a few thousand half-sent requests would hold every connection there is. Proxies do
this too; ours holds without one.
"""

import asyncio
from typing import Any

from litestar.types import Receive
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from annotomy.errors import RequestTooSlow

HEADER_LIMIT_S = 10.0
"""From the first byte of a request (or the connection's begin) to the end of its header."""
MAX_CONNECTIONS = 8_000
"""Of one process; about 100 MB when all of them wait. For one more, the one that owes its header for longest is closed."""
BODY_IDLE_LIMIT_S = 75.0
"""A body that pauses for so long has lost its sender; uploads end a little earlier and keep what came."""
BODY_GRACE_S = 60.0
BODY_LEAST_BYTES_PER_S = 256
"""After the grace, a body that comes slower on the average is a crawl, not a bad line."""

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class DeadlineProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a limit on how long a header may take."""

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_header()
        if len(self.connections) > MAX_CONNECTIONS:
            next(iter(_owing)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_came()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        if self._header_timer is None:
            self._await_header()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._header_came()
        super().on_headers_complete()

    def _await_header(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_LIMIT_S, self._header_is_late)
        _owing[self] = None

    def _header_came(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        _owing.pop(self, None)

    def _header_is_late(self) -> None:
        self._header_timer = None
        _owing.pop(self, None)
        if not self.transport.is_closing():
            cycle: Any = self.cycle  # None before the first request, which its annotation does not say
            if cycle is None or cycle.response_complete:
                self.transport.write(_TOO_SLOW)
            self.transport.close()


_owing: dict[DeadlineProtocol, None] = {}
"""Connections of this process whose header is not complete, oldest first."""


def timely(receive: Receive) -> Receive:
    """The body's messages, as long as they keep coming. Raises RequestTooSlow."""
    loop = asyncio.get_running_loop()
    began, count, complete = loop.time(), 0, False

    async def receive_in_time() -> Any:
        nonlocal count, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout(BODY_IDLE_LIMIT_S):
                message: Any = await receive()
        except TimeoutError:
            raise RequestTooSlow("Nothing more of the request's body came.") from None
        count += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        passed = loop.time() - began
        if not complete and passed > BODY_GRACE_S and count < passed * BODY_LEAST_BYTES_PER_S:
            raise RequestTooSlow("The request's body comes too slowly.")
        return message

    return receive_in_time
