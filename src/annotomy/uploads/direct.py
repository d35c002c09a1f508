"""Direct uploads: numbered parts sent by signed addresses, to the object store where there is one, else to this server.

One protocol for both, so that one client works with both: begin, ask for addresses, PUT, ask what has arrived, complete. A
part is there whole or not at all. Nothing becomes visible before the size and the hash of the whole are found right.
"""

import asyncio
import base64
import binascii
import errno
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

import msgspec
from blake3 import blake3

from annotomy.actor import SYSTEM, Actor
from annotomy.archive.quotas import require_quota
from annotomy.blobs.staging import S3Staging, StagingUnavailable
from annotomy.db.engine import WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, Forbidden
from annotomy.services import Services
from annotomy.uploads.errors import (
    ChecksumMismatch,
    DiskFull,
    NotDirect,
    ObjectStoreUnavailable,
    UploadGone,
    UploadIncomplete,
)
from annotomy.uploads.part_file import PartWriter, held_by_parts, held_whole, make_durably, part_file, remove
from annotomy.uploads.pictures import GeometryForm
from annotomy.uploads.progress import tell_bytes
from annotomy.uploads.receive import LIFETIME, get_upload, hand_over, project_of_upload, require_free, require_room

LEAST_PART_BYTES: Final = 5 << 20
"""What S3 takes as the smallest part but the last."""
MOST_PART_BYTES: Final = 1 << 30
USUAL_PART_BYTES: Final = 16 << 20
MAX_PARTS: Final = 10_000
"""S3's limit for one object."""
SIGNED_AT_ONCE: Final = 1000
"""Addresses in one answer."""
ADDRESS_LIFETIME: Final = timedelta(hours=1)
"""A slow line takes minutes for a part; a new address is one request away."""
MISSING_TOLD: Final = 1000
"""Numbers of missing parts in one problem."""


class Part(msgspec.Struct, frozen=True):
    number: int
    size: int
    etag: str


class PartAddress(msgspec.Struct, frozen=True):
    """`PUT` the bytes from `offset` on to `url` with exactly these `headers` and no credential. `url` is absolute, or begins
    with `/` and is one of this server."""

    number: int
    offset: int
    length: int
    url: str
    headers: dict[str, str]
    method: str = "PUT"


class WantedPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`content_md5` in base64: with it the receiver refuses a part whose bytes differ."""

    number: int
    content_md5: str | None = None


def part_size(length: int, wanted: int | None) -> int:
    """Raises BadRequest when it is none that object stores take."""
    size = wanted or max(USUAL_PART_BYTES, -(-length // (MAX_PARTS << 20)) << 20)
    if not LEAST_PART_BYTES <= size <= MOST_PART_BYTES or -(-length // size) > MAX_PARTS or size % 4096:
        raise BadRequest(
            f"A part has {LEAST_PART_BYTES} to {MOST_PART_BYTES} bytes, a multiple of 4096, and there are at most {MAX_PARTS}."
        )
    return size


async def begin(
    services: Services,
    actor: Actor,
    *,
    length: int,
    sha256: str | None,
    blake3_hex: str | None,
    filename: str,
    relative_path: str,
    project_id: UUID | None,
    manifest_id: UUID | None,
    geometry: GeometryForm | None,
    part_bytes: int | None,
) -> UUID:
    """Raises TooLarge, DiskFull, QuotaExceeded before any byte is sent; BadRequest for a length or hash that is none."""
    if length < 1:
        raise BadRequest("A direct upload has at least one byte.")
    if (sha256 is None) == (blake3_hex is None):
        raise BadRequest("A direct upload tells one hash of the whole file: sha256 or blake3.")
    size = part_size(length, part_bytes)
    require_room(services, length)
    upload_id = new_id()
    path = part_file(services, upload_id)
    where, multipart_id = "server", None
    if services.staging is not None:
        where = "s3"
    else:
        await asyncio.to_thread(make_durably, path)
    try:
        # The right and the quota first: what nobody may store is not begun at the object store.
        async with services.db.write(actor) as tx:
            project = await project_of_upload(tx, actor, project_id, manifest_id)
            await require_quota(tx, services.settings.limits, actor.user_id, project, length, opens=1)
        if services.staging is not None:
            multipart_id = await _available(services.staging.begin(str(upload_id)))
        async with services.db.write(actor) as tx:
            project = await project_of_upload(tx, actor, project_id, manifest_id)
            await require_quota(tx, services.settings.limits, actor.user_id, project, length, opens=1)
            await tx.execute(
                "insert into uploads (id, owner_id, project_id, filename, relative_path, length, sha256, blake3, manifest_id,"
                " expires_at, geometry, claimed_bytes, direct, part_bytes, part_secret, multipart_id)"
                " values ($1, $2, $3, $4, $5, $6::bigint, $7, $8, $9, $10, $11, $6::bigint, $12, $13, $14, $15)",
                upload_id, actor.user_id, project, filename[:255], relative_path[:1024], length, sha256, blake3_hex,
                manifest_id, services.clock.now() + LIFETIME, msgspec.to_builtins(geometry), where, size,
                secrets.token_bytes(32), multipart_id,
            )  # fmt: skip
    except BaseException:
        remove(path)
        raise
    return upload_id


async def addresses(
    services: Services, actor: Actor, upload_id: UUID, wanted: list[WantedPart]
) -> tuple[list[PartAddress], int]:
    """Where to send these parts, and how long the addresses hold in seconds."""
    if not 1 <= len(wanted) <= SIGNED_AT_ONCE:
        raise BadRequest(f"1 to {SIGNED_AT_ONCE} parts at once.")
    async with services.db.write(actor) as tx:
        upload = await _direct_upload(tx, upload_id)
        await _keep_alive(tx, services, upload_id)
    lifetime_s = int(ADDRESS_LIFETIME.total_seconds())
    return [_address(services, upload, part, lifetime_s) for part in wanted], lifetime_s


def _address(services: Services, upload: Any, part: WantedPart, lifetime_s: int) -> PartAddress:
    offset, length = _extent(upload, part.number)
    if part.content_md5 is not None:
        _digest(part.content_md5)
    if upload["direct"] == "s3":
        signed = _staging(services).sign_part(
            str(upload["id"]), upload["multipart_id"], part.number,
            length=length, content_md5=part.content_md5, lifetime_s=lifetime_s,
        )  # fmt: skip
        return PartAddress(part.number, offset, length, signed.url, signed.headers)
    expires = int(services.clock.now().timestamp()) + lifetime_s
    signature = _signature(upload["part_secret"], upload["id"], part.number, expires, part.content_md5)
    url = f"/api/v1/uploads/{upload['id']}/parts/{part.number}?expires={expires}&signature={signature}"
    headers = {"Content-Length": str(length)}
    if part.content_md5 is not None:
        url += f"&content_md5={quote(part.content_md5, safe='')}"
        headers["Content-MD5"] = part.content_md5
    return PartAddress(part.number, offset, length, url, headers)


async def parts_of(services: Services, actor: Actor, upload_id: UUID) -> tuple[Any, list[Part]]:
    """The upload's row and what has arrived: where to go on after a cut."""
    async with services.db.read(actor) as tx:
        upload = await _direct_upload(tx, upload_id, states=("receiving", "verifying", "ingesting", "stored", "failed"))
    if upload["state"] != "receiving":
        return upload, []
    found = await _arrived(services, upload)
    received = sum(part.size for part in found)
    async with services.db.write(actor) as tx:
        await tx.execute(
            "update uploads set received = $2, expires_at = $3 where id = $1 and state = 'receiving'",
            upload_id, min(received, upload["length"]), services.clock.now() + LIFETIME,
        )  # fmt: skip
        await tell_bytes(tx, upload_id, services.clock.now())
    return upload, found


async def complete(services: Services, actor: Actor, upload_id: UUID, told: list[Part] | None) -> None:
    """Held against the list of what has arrived (and against `told`, the client's own); then the ingest job verifies the
    hash. Doing it again is no error. Raises UploadIncomplete with the numbers that are missing."""
    async with services.db.read(actor) as tx:
        upload = await _direct_upload(tx, upload_id, states=("receiving", "verifying", "ingesting", "stored"))
    if upload["state"] != "receiving":
        return
    if upload["direct"] == "server":
        async with held_whole(part_file(services, upload_id)):  # no part is being written any more
            _require_complete(upload, await _arrived(services, upload), told)
            await _hand_over(services, actor, upload)
        return
    staging = _staging(services)
    name = str(upload_id)
    arrived = await _available(staging.parts(name, upload["multipart_id"]))
    if arrived is None:  # an earlier try came to its end at the store and not at us
        if await _available(staging.size(name)) != upload["length"]:
            raise UploadGone("The object store holds the upload no more.")
    else:
        _require_complete(upload, [Part(part.number, part.size, part.etag) for part in arrived], told)
        await _available(staging.finish(name, upload["multipart_id"], arrived))
    await _hand_over(services, actor, upload)


async def receive_part(
    services: Services,
    upload_id: UUID,
    number: int,
    *,
    expires: int,
    signature: str,
    content_md5: str | None,
    announced: int | None,
    body: AsyncIterator[bytes],
) -> str:
    """The ETag of a part that is durable now. Who holds the address may send it: nobody is asked who they are."""
    async with services.db.read(SYSTEM) as tx:
        upload = await tx.fetchrow(f"select {_COLUMNS} from uploads where id = $1 and direct = 'server'", upload_id)
    if upload is None:
        raise Forbidden("The address is none that was given.")
    right = _signature(upload["part_secret"], upload_id, number, expires, content_md5)
    if not hmac.compare_digest(right.encode(), signature.encode()) or services.clock.now().timestamp() > expires:
        raise Forbidden("The address is none that was given, or it has expired.")
    offset, length = _extent(upload, number)
    if announced != length:
        raise BadRequest(f"This part has Content-Length {length}.")
    path = part_file(services, upload_id)
    digest = _PartDigest(content_md5)
    try:
        async with held_by_parts(path) as descriptor:
            await _require_receiving(services, upload_id)
            require_free(services, length)
            writer = PartWriter(path, descriptor, offset, digest)
            try:
                async for piece in body:
                    if writer.position + len(piece) > offset + length:
                        raise BadRequest(f"This part has {length} bytes.")
                    await writer.add(piece)
                position = await writer.finish()
            finally:
                await writer.let_go()
            if position != offset + length:
                raise BadRequest(f"This part has {length} bytes.")
            etag = digest.verified()
            await _book_part(services, upload_id, number, length, etag)
    except KeyError:
        raise UploadGone("The upload has no bytes any more.") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("The server's disk is full.") from error
        raise
    return etag


class _PartDigest:
    """BLAKE3 names the part; MD5 is computed only where the address demands it, as object stores do."""

    of_pieces = False

    def __init__(self, content_md5: str | None) -> None:
        self._hash = blake3()
        self._md5 = hashlib.md5(usedforsecurity=False) if content_md5 else None
        self._expected = _digest(content_md5) if content_md5 else b""

    def update(self, data: bytes | memoryview, /) -> None:
        self._hash.update(data)
        if self._md5 is not None:
            self._md5.update(data)

    def verified(self) -> str:
        if self._md5 is not None and self._md5.digest() != self._expected:
            raise ChecksumMismatch("The part does not hash to its Content-MD5.")
        return self._hash.hexdigest()[:32]


_COLUMNS: Final = "id, owner_id, project_id, length, received, state, direct, part_bytes, part_secret, multipart_id"


async def _direct_upload(tx: Any, upload_id: UUID, *, states: tuple[str, ...] = ("receiving",)) -> Any:
    await get_upload(tx, upload_id)  # whose it is
    upload = await tx.fetchrow(f"select {_COLUMNS} from uploads where id = $1", upload_id)
    if upload["direct"] is None:
        raise NotDirect("The upload was created by the tus protocol or the IETF draft.")
    if upload["state"] not in states:
        raise NotDirect("The upload is complete already.")
    return upload


def _extent(upload: Any, number: int) -> tuple[int, int]:
    """Offset and length of a part. Raises BadRequest for a number that there is not."""
    offset = (number - 1) * upload["part_bytes"]
    if number < 1 or offset >= upload["length"]:
        raise BadRequest(f"The upload has the parts 1 to {-(-upload['length'] // upload['part_bytes'])}.")
    return offset, min(upload["part_bytes"], upload["length"] - offset)


def _digest(content_md5: str) -> bytes:
    try:
        digest = base64.b64decode(content_md5, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != 16:
        raise BadRequest("content_md5 takes 16 bytes in base64.")
    return digest


def _signature(secret: bytes, upload_id: UUID, number: int, expires: int, content_md5: str | None) -> str:
    text = f"{upload_id}\n{number}\n{expires}\n{content_md5 or ''}"
    return hmac.digest(secret, text.encode(), "sha256").hex()


async def _arrived(services: Services, upload: Any) -> list[Part]:
    if upload["direct"] == "s3":
        found = await _available(_staging(services).parts(str(upload["id"]), upload["multipart_id"]))
        return [Part(part.number, part.size, part.etag) for part in found or []]
    async with services.db.read(SYSTEM) as tx:
        rows = await tx.fetch(
            "select number, size, etag from upload_parts where upload_id = $1 order by number", upload["id"]
        )
    return [Part(**dict(row)) for row in rows]


def _require_complete(upload: Any, arrived: list[Part], told: list[Part] | None) -> None:
    by_number = {part.number: part for part in arrived}
    count = -(-upload["length"] // upload["part_bytes"])
    wrong = [
        number
        for number in range(1, count + 1)
        if number not in by_number or by_number[number].size != _extent(upload, number)[1]
    ]
    if told is not None:
        etags = {part.number: part.etag.strip('"') for part in told}
        wrong += [n for n in range(1, count + 1) if n not in wrong and etags.get(n) != by_number[n].etag]
    if wrong or len(by_number) != count:
        raise UploadIncomplete(
            f"{len(wrong)} of {count} parts are missing or other than was said.", missing=sorted(wrong)[:MISSING_TOLD]
        )


async def _require_receiving(services: Services, upload_id: UUID) -> None:
    """After the part file is held: from here on nobody completes the upload until it is let go."""
    async with services.db.read(SYSTEM) as tx:
        state = await tx.fetchval("select state from uploads where id = $1", upload_id)
    if state != "receiving":
        raise UploadGone("The upload takes no parts any more.")


async def _book_part(services: Services, upload_id: UUID, number: int, size: int, etag: str) -> None:
    async with services.db.write(SYSTEM) as tx:
        # The upload's row first: one order for all who book parts of it.
        state = await tx.fetchval("select state from uploads where id = $1 for update", upload_id)
        if state != "receiving":
            raise UploadGone("The upload was given up meanwhile.")
        await tx.execute(
            "insert into upload_parts (upload_id, number, size, etag) values ($1, $2, $3, $4)"
            " on conflict (upload_id, number) do update set size = excluded.size, etag = excluded.etag",
            upload_id, number, size, etag,
        )  # fmt: skip
        await tx.execute(
            "update uploads set expires_at = $2, received = (select sum(size) from upload_parts where upload_id = $1)"
            " where id = $1",
            upload_id, services.clock.now() + LIFETIME,
        )  # fmt: skip
        await tell_bytes(tx, upload_id, services.clock.now())


async def _hand_over(services: Services, actor: Actor, upload: Any) -> None:
    async with services.db.write(actor) as tx:
        moved = await tx.fetchval(
            "update uploads set received = length where id = $1 and state = 'receiving' returning id", upload["id"]
        )
        if moved is not None:
            await hand_over(tx, upload["id"], upload["project_id"])


async def _keep_alive(tx: WriteTx, services: Services, upload_id: UUID) -> None:
    await tx.execute("update uploads set expires_at = $2 where id = $1", upload_id, services.clock.now() + LIFETIME)


def _staging(services: Services) -> S3Staging:
    if services.staging is None:
        raise ObjectStoreUnavailable("The server has no object store any more.")
    return services.staging


async def _available(asked: Any) -> Any:
    """What the object store answers; its failure as a problem that says to come again."""
    try:
        return await asked
    except StagingUnavailable as error:
        raise ObjectStoreUnavailable("The object store does not answer as it should.") from error
