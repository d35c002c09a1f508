"""What both upload protocols read from a request, and what both advise."""

from collections.abc import AsyncIterator
from typing import Any

from litestar import Request
from litestar.exceptions import InternalServerException

from annotomy.errors import BadRequest
from annotomy.services import Services
from annotomy.uploads.errors import ConnectionBroken

ADVISED_CHUNK_BYTES = 64 << 20
"""Below the 100 MB at which common proxies cut a request; large enough that its overhead is lost in the transfer."""
LEAST_CHUNK_BYTES = 5 << 20
"""What object stores take as the smallest part; nothing is refused below it."""


async def body_of(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    """The body's pieces. Raises ConnectionBroken when the client is gone before its end."""
    try:
        async for piece in request.stream():
            yield piece
    except InternalServerException as gone:  # the framework's word for a disconnect in the body
        raise ConnectionBroken("The connection ended before the body did.") from gone


def whole_header(request: Request[Any, Any, Any], header: str) -> int:
    text = request.headers.get(header, "")
    if not text.isdigit() or not text.isascii() or len(text) > 18:
        raise BadRequest(f"The header {header} takes a whole number of bytes.")
    return int(text)


def announced_bytes(request: Request[Any, Any, Any]) -> int | None:
    """Content-Length; None of a body that comes in chunks, whose bytes are counted as they come."""
    return whole_header(request, "content-length") if "content-length" in request.headers else None


def upload_limit(services: Services) -> str:
    """The IETF draft's `Upload-Limit`: a structured dictionary, sent to tus clients too."""
    return f"max-size={services.settings.limits.upload_bytes}, max-append-size={ADVISED_CHUNK_BYTES}"
