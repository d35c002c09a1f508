"""Receiving: chunks into the part file, then the offset into the row. The offset that HEAD tells is durable.

Order: the chunk's bytes, fdatasync, then the row. A crash between the two leaves bytes behind the offset, which the next
chunk overwrites. tus and the IETF draft (`routes.py`, `draft_routes.py`) speak to these same operations.
"""

import asyncio
import errno
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from annotomy.actor import Actor
from annotomy.archive.quotas import require_quota
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, Conflict, NotFound, Problem, TooLarge
from annotomy.jobs.queue import enqueue
from annotomy.projects.access import key_reaches
from annotomy.projects.service import project_for_store
from annotomy.services import Services
from annotomy.uploads.checksum import Checksum
from annotomy.uploads.errors import (
    ChecksumMismatch,
    ConnectionBroken,
    DiskFull,
    OffsetMismatch,
    SentInParts,
    TooSlow,
    UploadBusy,
    UploadGone,
    UploadHandedOver,
    UploadIncomplete,
)
from annotomy.uploads.ingest import IngestUpload
from annotomy.uploads.manifests import project_of_manifest
from annotomy.uploads.part_file import PartWriter, is_wanted, make_durably, part_file, remove, sole_writer
from annotomy.uploads.pictures import GeometryForm
from annotomy.uploads.progress import tell, tell_bytes
from annotomy.uploads.staged import drop_staged

LIFETIME = timedelta(days=7)
"""An upload to which nothing was added for so long is removed."""
IDLE_LIMIT_S = 60.0
"""A connection that sends nothing for so long is ended; what came is kept."""
WATCH_S = 0.2
"""How often a connection looks whether a newer one wants its upload."""
FREE_BYTES = 1 << 30
"""Room that uploads leave on the disk: the database on the same disk must always be able to write."""
MAX_PARTS = 1000
"""Partial uploads of one concatenation."""

_COLUMNS = "id, owner_id, project_id, filename, length, received, claimed_bytes, state, concat, parts, direct, job_id, expires_at"


async def create_upload(
    services: Services,
    actor: Actor,
    *,
    length: int | None,
    filename: str = "",
    relative_path: str = "",
    project_id: UUID | None = None,
    manifest_id: UUID | None = None,
    sha256: str | None = None,
    geometry: GeometryForm | None = None,
    partial: bool = False,
) -> UUID:
    """`length` None is told later. A partial upload waits to be named by a final one.

    Raises TooLarge and DiskFull before any byte is sent, NotFound or Forbidden when the actor may not store there.
    """
    require_room(services, length or 0)
    upload_id = new_id()
    path = part_file(services, upload_id)
    await asyncio.to_thread(make_durably, path)
    try:
        async with services.db.write(actor) as tx:
            project = await project_of_upload(tx, actor, project_id, manifest_id)
            await require_quota(tx, services.settings.limits, actor.user_id, project, length or 0, opens=1)
            await tx.execute(
                "insert into uploads (id, owner_id, project_id, filename, relative_path, length, sha256, concat, manifest_id,"
                " expires_at, geometry, claimed_bytes) values ($1, $2, $3, $4, $5, $6::bigint, $7, $8, $9, $10, $11, coalesce($6::bigint, 0))",
                upload_id, actor.user_id, project, filename[:255], relative_path[:1024], length, sha256,
                "partial" if partial else None, manifest_id, services.clock.now() + LIFETIME,
                msgspec.to_builtins(geometry),
            )  # fmt: skip
            if length == 0 and not partial:
                await hand_over(tx, upload_id, project)
    except BaseException:
        remove(path)
        raise
    return upload_id


async def concatenate(
    services: Services,
    actor: Actor,
    parts: list[UUID],
    *,
    filename: str,
    relative_path: str,
    project_id: UUID | None,
    manifest_id: UUID | None,
    sha256: str | None,
    geometry: GeometryForm | None,
) -> UUID:
    """A final upload made of complete partial ones, in this order (tus concatenation). Raises UploadIncomplete."""
    if not 1 <= len(parts) <= MAX_PARTS:
        raise BadRequest(f"A concatenation names 1 to {MAX_PARTS} uploads.")
    upload_id = new_id()
    async with services.db.write(actor) as tx:
        rows = {part: await get_upload(tx, part) for part in set(parts)}
        if any(row["concat"] != "partial" or row["received"] != row["length"] for row in rows.values()):
            raise UploadIncomplete("Each upload that is named must be a complete partial upload.")
        length = sum(rows[part]["length"] for part in parts)
        require_room(services, length)
        project = await project_of_upload(tx, actor, project_id, manifest_id)
        await tx.execute(
            "insert into uploads (id, owner_id, project_id, filename, relative_path, length, received, sha256, concat, parts,"
            " manifest_id, expires_at, geometry, claimed_bytes)"
            " values ($1, $2, $3, $4, $5, $6::bigint, $6::bigint, $7, 'final', $8, $9, $10, $11, $6::bigint)",
            upload_id, actor.user_id, project, filename[:255], relative_path[:1024], length, sha256, parts, manifest_id,
            services.clock.now() + LIFETIME, msgspec.to_builtins(geometry),
        )  # fmt: skip
        await hand_over(tx, upload_id, project)
    return upload_id


async def project_of_upload(tx: WriteTx, actor: Actor, project_id: UUID | None, manifest_id: UUID | None) -> UUID:
    """A manifest's uploads go where the manifest goes."""
    if manifest_id is not None:
        project_id = await project_of_manifest(tx, manifest_id)
    return await project_for_store(tx, actor, project_id)


async def get_upload(tx: ReadTx, upload_id: UUID) -> Any:
    """Raises NotFound unless the upload is the actor's own, UploadGone when it has expired."""
    row = await tx.fetchrow(
        f"select {_COLUMNS}, state = 'failed' and received is distinct from length as gone from uploads"
        f" where id = $1 and owner_id = $2 and {key_reaches('project_id')}",
        upload_id, tx.actor.user_id,
    )  # fmt: skip
    if row is None:
        raise NotFound("There is no such upload of yours.")
    if row["gone"]:
        raise UploadGone("The upload has expired.")
    return row


async def receive_chunk(
    services: Services,
    actor: Actor,
    upload_id: UUID,
    *,
    offset: int,
    body: AsyncIterator[bytes],
    checksum: str | None = None,
    length: int | None = None,
    completes: bool = False,
    announced: int | None = None,
) -> int:
    """Appends a chunk and returns the new durable offset. What arrived before a broken connection is kept.

    `announced` is the body's length where it is known: one that goes too far is refused before any of it is read.
    `length` tells one that was deferred; `completes` says that the upload ends with this chunk. Raises OffsetMismatch,
    UploadBusy, UploadHandedOver, TooLarge, TooSlow, DiskFull, ChecksumMismatch.
    """
    digest = Checksum(checksum) if checksum else None
    path = part_file(services, upload_id)
    async with services.db.read(actor) as tx:
        await get_upload(tx, upload_id)  # whose it is, before a newer connection is served
    try:
        async with sole_writer(path) as descriptor:
            async with services.db.read(actor) as tx:
                upload = await get_upload(tx, upload_id)
            if upload["direct"] is not None:
                raise SentInParts("The upload takes numbered parts, at the addresses that it gives.")
            if upload["state"] != "receiving" or offset != upload["received"]:
                raise OffsetMismatch("The upload stands elsewhere.", offset=upload["received"])
            known = _told_length(upload, length, services.settings.limits.upload_bytes)
            require_free(services, announced or 0)
            limit = known or services.settings.limits.upload_bytes
            if announced is not None and offset + announced > limit:
                raise TooLarge("The chunk goes beyond the upload's length.", limit_bytes=limit)
            writer = PartWriter(path, descriptor, offset, digest)
            try:
                ended = await _write(writer, _watched(body, path), limit, digest)
                position = await writer.finish()
            finally:
                await writer.let_go()
            if digest is not None and not digest.matches():
                raise ChecksumMismatch("The chunk does not hash to its Upload-Checksum.")
            if completes and ended is None:
                known = _told_length(upload, position, position)
            await _book(services, actor, upload, position, known)
    except KeyError:
        raise UploadGone("The upload has no bytes any more.") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("The server's disk is full.") from error
        raise
    if ended is not None:
        raise ended
    return position


async def _write(writer: PartWriter, body: AsyncIterator[bytes], limit: int, digest: Checksum | None) -> Problem | None:
    """What ended the body early, when what came is worth keeping: with a checksum to meet, part of a chunk is not."""
    try:
        async for piece in body:
            if writer.position + len(piece) > limit:
                raise TooLarge("The chunk goes beyond the upload's length.", limit_bytes=limit)
            await writer.add(piece)
    except (ConnectionBroken, UploadHandedOver, TooSlow) as ended:
        if digest is not None:
            raise
        return ended
    return None


async def _watched(body: AsyncIterator[bytes], path: Any) -> AsyncIterator[bytes]:
    """The body, until a newer connection wants the upload or nothing comes any more."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Timeout | None = None
    taken = False

    async def watch() -> None:
        nonlocal taken
        while not is_wanted(path):  # noqa: ASYNC110 - the other side may be another process
            await asyncio.sleep(WATCH_S)
        taken = True
        if waiting is not None:
            waiting.reschedule(loop.time())

    watcher = asyncio.create_task(watch())
    try:
        while not taken:
            try:
                async with asyncio.timeout(IDLE_LIMIT_S) as waiting:
                    piece = await anext(body)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if taken:
                    break
                raise TooSlow(f"Nothing came for {IDLE_LIMIT_S:.0f} s.") from None
            finally:
                waiting = None
            yield piece
        raise UploadHandedOver("A newer connection goes on with this upload.")
    finally:
        watcher.cancel()


def _told_length(upload: Any, told: int | None, limit: int) -> int | None:
    """The upload's length, as known or as told now. Raises Conflict when it was told otherwise before."""
    if told is None:
        return upload["length"]
    if upload["length"] not in (None, told):
        raise Conflict("The upload's length was told before and cannot change.", length=upload["length"])
    if told > limit:
        raise TooLarge("The upload is over the limit.", limit_bytes=limit)
    return told


async def _book(services: Services, actor: Actor, upload: Any, position: int, length: int | None) -> None:
    async with services.db.write(actor) as tx:
        if upload["length"] is None:  # it claims as it grows, until its length is told
            more = max(position, length or 0) - upload["claimed_bytes"]
            await require_quota(tx, services.settings.limits, upload["owner_id"], upload["project_id"], more, opens=0)
        moved = await tx.fetchval(
            "update uploads set received = $3::bigint, length = $4::bigint, expires_at = $5, claimed_bytes = greatest(claimed_bytes, $3::bigint, $4::bigint)"
            " where id = $1 and state = 'receiving' and received = $2 returning id",
            upload["id"], upload["received"], position, length, services.clock.now() + LIFETIME,
        )  # fmt: skip
        if moved is None:
            raise UploadGone("The upload was given up meanwhile.")
        await tell_bytes(tx, upload["id"], services.clock.now())
        if position == length and upload["concat"] is None:
            await hand_over(tx, upload["id"], upload["project_id"])


async def hand_over(tx: WriteTx, upload_id: UUID, project_id: UUID) -> None:
    """The last byte's transaction enqueues what happens next."""
    job_id = await enqueue(tx, IngestUpload(upload_id=upload_id), project_id=project_id)
    await tx.execute("update uploads set state = 'verifying', job_id = $2 where id = $1", upload_id, job_id)
    await tell(tx, "upload.received", upload_id)


async def terminate_upload(services: Services, actor: Actor, upload_id: UUID) -> None:
    async with services.db.write(actor) as tx:
        upload = await get_upload(tx, upload_id)
        if upload["state"] in ("verifying", "ingesting"):
            raise UploadBusy("The upload is being taken in.")
        multipart_id = await tx.fetchval("delete from uploads where id = $1 returning multipart_id", upload_id)
    remove(part_file(services, upload_id))
    if multipart_id is not None:
        await drop_staged(services, upload_id, multipart_id)


def require_room(services: Services, length: int) -> None:
    limit = services.settings.limits.upload_bytes
    if length > limit:
        raise TooLarge("The upload is over the limit.", limit_bytes=limit)
    require_free(services, length)


def require_free(services: Services, more: int) -> None:
    """Before `more` bytes are read. Raises DiskFull: uploads end where the database would begin to suffer."""
    services.settings.data_dir.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(services.settings.data_dir).free < more + FREE_BYTES:
        raise DiskFull("The server has no room for so many bytes.")
