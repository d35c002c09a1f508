"""A file that comes in pieces over HTTP: in memory while it is small, else beside the blobs."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from annotomy.archive.store import Incoming
from annotomy.errors import TooLarge
from annotomy.services import Services

IN_MEMORY_BYTES = 16 << 20
"""A larger one goes to a file while it arrives."""


@asynccontextmanager
async def spooled(
    services: Services, name: str, pieces: AsyncIterator[bytes], *, prefix: str
) -> AsyncGenerator[Incoming]:
    """All of the pieces, for the store operation; at the end of the block what it has not taken is removed. Raises TooLarge."""
    held = bytearray()
    async for piece in pieces:
        held += piece
        if len(held) > IN_MEMORY_BYTES:
            path = await _spill(services, held, pieces, prefix)
            try:
                yield Incoming(name, path=path)
            finally:
                path.unlink(missing_ok=True)  # still there when it was refused
            return
    yield Incoming(name, data=bytes(held))


async def _spill(services: Services, held: bytearray, rest: AsyncIterator[bytes], prefix: str) -> Path:
    """What came of a file and all that is to come, beside the blobs."""
    limit = services.settings.limits.instance_bytes
    path = services.settings.spool_dir / f"{prefix}-{secrets.token_hex(16)}"
    size = len(held)
    with path.open("xb") as file:
        try:
            await asyncio.to_thread(file.write, held)
            async for piece in rest:
                size += len(piece)
                if size > limit:
                    raise TooLarge("An instance is over the limit.", limit_bytes=limit)  # noqa: TRY301 - the file goes first
                await asyncio.to_thread(file.write, piece)
        except BaseException:
            path.unlink()
            raise
    return path
