"""Streams of server-sent events (WHATWG HTML 9.2)."""

from typing import Any

from litestar import Request

from annotomy.errors import BadRequest


def position_told(request: Request[Any, Any, Any]) -> int | None:
    """Behind which event a stream goes on (`Last-Event-ID`); None: from now on. Raises BadRequest."""
    told = request.headers.get("last-event-id")
    if told is None:
        return None
    if not (told.isascii() and told.isdigit()):
        raise BadRequest("Last-Event-ID is a position that this server gave.")
    return int(told)
