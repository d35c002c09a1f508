"""Receiving: chunks into the part file, then the offset into the row. The offset that HEAD tells is durable.

Order: the chunk's bytes, fdatasync, then the row. A crash between the two leaves bytes behind the offset, which the next
chunk overwrites.
"""

import asyncio
import base64
import binascii
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import google_crc32c

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, NotFound, TooLarge
from annotomy.events import Event, emit
from annotomy.jobs.queue import enqueue
from annotomy.projects.service import project_for_store
from annotomy.services import Services
from annotomy.uploads.errors import ChecksumMismatch, OffsetMismatch, UploadBusy
from annotomy.uploads.ingest import IngestUpload

LIFETIME = timedelta(days=7)
"""An upload that is not finished by then is removed."""
COALESCE_BYTES = 4 << 20
"""Pieces of the body are gathered to this size: one write and one hop to a thread for each."""
CHECKSUMS = ("sha256", "sha1", "crc32c")

_COLUMNS = "id, owner_id, project_id, filename, length, received, state, job_id, expires_at"


def part_file(services: Services, upload_id: UUID) -> Path:
    folder = services.settings.data_dir / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{upload_id}.part"


async def create_upload(
    services: Services,
    actor: Actor,
    *,
    length: int,
    filename: str,
    relative_path: str,
    project_id: UUID | None,
    sha256: str | None,
) -> UUID:
    """Raises TooLarge before any byte is sent, and NotFound or Forbidden when the actor may not store in the project."""
    limit = services.settings.limits.upload_bytes
    if length > limit:
        raise TooLarge("The upload is over the limit.", limit_bytes=limit)
    upload_id = new_id()
    path = part_file(services, upload_id)
    await asyncio.to_thread(_make_durably, path)
    async with services.db.write(actor) as tx:
        project = await project_for_store(tx, actor, project_id)
        await tx.execute(
            "insert into uploads (id, owner_id, project_id, filename, relative_path, length, sha256, expires_at)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8)",
            upload_id, actor.user_id, project, filename[:255], relative_path[:1024], length, sha256,
            services.clock.now() + LIFETIME,
        )  # fmt: skip
        if length == 0:
            await _hand_over(tx, upload_id, project)
    return upload_id


async def get_upload(tx: ReadTx, upload_id: UUID) -> Any:
    """Raises NotFound unless the upload is the actor's own."""
    row = await tx.fetchrow(
        f"select {_COLUMNS} from uploads where id = $1 and owner_id = $2", upload_id, tx.actor.user_id
    )
    if row is None:
        raise NotFound("There is no such upload of yours.")
    return row


async def receive_chunk(
    services: Services,
    actor: Actor,
    upload_id: UUID,
    *,
    offset: int,
    body: AsyncIterator[bytes],
    checksum: str | None,
    announced_bytes: int | None = None,
) -> int:
    """Appends a chunk and returns the new durable offset. What arrived before a broken connection is kept.

    `announced_bytes` (Content-Length) over the upload's length is refused before any of the body is read.

    Raises OffsetMismatch, UploadBusy, TooLarge, ChecksumMismatch.
    """
    check = _Checksum(checksum) if checksum else None
    async with services.db.pool.acquire() as lock:
        # A session lock: it is freed when this process dies, and holds no transaction open while bytes arrive.
        if not await lock.fetchval("select pg_try_advisory_lock(hashtextextended($1, 1))", str(upload_id)):
            raise UploadBusy("Another connection is writing to this upload.")
        try:
            async with services.db.read(actor) as tx:
                upload = await get_upload(tx, upload_id)
            if upload["state"] != "receiving" or offset != upload["received"]:
                raise OffsetMismatch("The upload stands elsewhere.", offset=upload["received"])
            if announced_bytes is not None and offset + announced_bytes > upload["length"]:
                raise TooLarge("The chunk goes beyond the upload's length.", limit_bytes=upload["length"])
            return await _append(services, actor, upload, body, check)
        finally:
            await lock.execute("select pg_advisory_unlock(hashtextextended($1, 1))", str(upload_id))


async def _append(
    services: Services, actor: Actor, upload: Any, body: AsyncIterator[bytes], check: "_Checksum | None"
) -> int:
    start, length = upload["received"], upload["length"]
    descriptor = os.open(part_file(services, upload["id"]), os.O_WRONLY)
    position, held = start, bytearray()
    broken: OSError | None = None
    try:
        try:
            async for piece in body:
                held += piece
                if position + len(held) > length:
                    raise TooLarge("The chunk goes beyond the upload's length.", limit_bytes=length)
                if len(held) >= COALESCE_BYTES:
                    position += await _write(descriptor, held, position, check)
                    held = bytearray()
        except OSError as error:  # the client went away; what came is worth keeping unless its checksum is now unknown
            broken = error
        if check is None or broken is None:
            position += await _write(descriptor, held, position, check)
        if check is not None and (broken is not None or not check.matches()):
            raise ChecksumMismatch("The chunk does not hash to its Upload-Checksum.")
        await asyncio.to_thread(os.fdatasync, descriptor)
    finally:
        os.close(descriptor)
    async with services.db.write(actor) as tx:
        await tx.execute(
            "update uploads set received = $2 where id = $1 and state = 'receiving'", upload["id"], position
        )
        if position == length:
            await _hand_over(tx, upload["id"], upload["project_id"])
    if broken is not None:
        raise broken
    return position


async def _write(descriptor: int, held: bytearray, position: int, check: "_Checksum | None") -> int:
    if held:
        await asyncio.to_thread(_write_all, descriptor, held, position, check)
    return len(held)


def _write_all(descriptor: int, held: bytearray, position: int, check: "_Checksum | None") -> None:
    view = memoryview(held)
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written
    if check is not None:
        check.update(bytes(held))


async def _hand_over(tx: Any, upload_id: UUID, project_id: UUID) -> None:
    """The last byte's transaction enqueues what happens next."""
    job_id = await enqueue(tx, IngestUpload(upload_id=upload_id), project_id=project_id)
    await tx.execute("update uploads set state = 'verifying', job_id = $2 where id = $1", upload_id, job_id)
    await emit(tx, Event(type="upload.received", object_kind="upload", object_id=str(upload_id), project_id=project_id))


async def terminate_upload(services: Services, actor: Actor, upload_id: UUID) -> None:
    async with services.db.write(actor) as tx:
        upload = await get_upload(tx, upload_id)
        if upload["state"] in ("verifying", "ingesting"):
            raise UploadBusy("The upload is being taken in.")
        await tx.execute("delete from uploads where id = $1", upload_id)
    part_file(services, upload_id).unlink(missing_ok=True)


class _Checksum:
    """`Upload-Checksum: algorithm base64` (tus 1.0, checksum extension)."""

    def __init__(self, header: str) -> None:
        name, _, encoded = header.strip().partition(" ")
        if name not in CHECKSUMS:
            raise BadRequest(f"Upload-Checksum takes one of {', '.join(CHECKSUMS)}.")
        try:
            self._expected = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise BadRequest("Upload-Checksum takes a digest in base64.") from None
        self._hash: Any = google_crc32c.Checksum() if name == "crc32c" else hashlib.new(name)

    def update(self, data: bytes) -> None:
        self._hash.update(data)

    def matches(self) -> bool:
        return self._hash.digest() == self._expected


def _make_durably(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
