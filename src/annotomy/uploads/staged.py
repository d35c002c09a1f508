"""What direct uploads left at the object store: read back for the ingest job, dropped at the end, swept when stale."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import structlog

from annotomy.actor import SYSTEM
from annotomy.blobs.staging import S3Staging, StagingUnavailable
from annotomy.jobs.handlers import Retry
from annotomy.services import Services
from annotomy.uploads.errors import ContentMismatch, UploadGone

log = structlog.get_logger(__name__)

LINE_BREAKS = 5
"""A read that breaks off goes on where it stood so often, each time with progress; then the job is tried again later."""


async def fetch_staged(services: Services, upload_id: UUID, path: Path, length: int) -> None:
    """The finished object as a file. Raises ContentMismatch for another size, Retry while the store fails.

    Not synced: until the end of the job the object store keeps it, and storing syncs what it stores.
    """
    staging = services.staging
    if staging is None:
        raise UploadGone("The server has no object store any more.")
    try:
        if await staging.size(str(upload_id)) is None:
            raise UploadGone("The object store holds the upload no more.")
        # A new file: an earlier attempt's bytes may be a blob of the archive by now, under another name.
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            position = await _copy(staging, str(upload_id), descriptor, length)
        finally:
            os.close(descriptor)
    except StagingUnavailable as error:
        raise Retry("the object store does not answer") from error
    if position != length:
        raise ContentMismatch("The object has another size than the upload.")


async def _copy(staging: S3Staging, name: str, descriptor: int, length: int) -> int:
    """How many bytes there are, counted no further than one piece beyond `length`."""
    position, breaks = 0, 0
    while True:
        began = position
        try:
            async for piece in staging.stream(name, position):
                await asyncio.to_thread(_write_all, descriptor, piece, position)
                position += len(piece)
                if position > length:
                    return position
        except StagingUnavailable:
            breaks += 1
            if breaks > LINE_BREAKS or position == began:
                raise
            continue
        return position


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


async def drop_staged(services: Services, upload_id: UUID, multipart_id: str | None = None) -> None:
    """After the row says that the upload is over. What cannot be dropped now, the sweep drops later."""
    if services.staging is None:
        return
    try:
        if multipart_id is not None:
            await services.staging.abort(str(upload_id), multipart_id)
        await services.staging.delete(str(upload_id))
    except StagingUnavailable as error:
        log.warning("upload.staged_kept", upload_id=str(upload_id), reason=str(error))


async def sweep_staged(services: Services, *, young: timedelta) -> int:
    """Drops what is older than `young` and belongs to no open upload of ours. Returns how many."""
    staging = services.staging
    if staging is None:
        return 0
    oldest = services.clock.now() - young
    try:
        begun = [(one.key, one.multipart_id) for one in await staging.unfinished() if one.begun < oldest]
        whole = [name for name, made in await staging.finished() if made < oldest]
        ours = {name: _upload_id(name) for name in [*whole, *(name for name, _ in begun)]}
        async with services.db.read(SYSTEM) as tx:
            rows = await tx.fetch(
                "select id, multipart_id from uploads where id = any($1) and state in ('receiving', 'verifying', 'ingesting')",
                [one for one in ours.values() if one is not None],
            )
        alive = {row["id"]: row["multipart_id"] for row in rows}
        dropped = 0
        for name, multipart_id in begun:
            if ours[name] is not None and alive.get(ours[name]) != multipart_id:
                await staging.abort(name, multipart_id)
                dropped += 1
        for name in whole:
            if ours[name] is not None and ours[name] not in alive:
                await staging.delete(name)
                dropped += 1
    except StagingUnavailable as error:
        log.warning("uploads.staged_not_swept", reason=str(error))
        return 0
    return dropped


def _upload_id(name: str) -> UUID | None:
    """None for what is none of ours: it stays."""
    try:
        return UUID(name)
    except ValueError:
        return None
