"""Evidence: a picture of what was seen when a version of an annotation stood, bound to that version for good.

It is stale when the annotation says something else by now; a step of the review or an assignment changes nothing of what is
seen. A version has one picture, which is never replaced.
"""

import asyncio
import io
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec
from PIL import Image

from annotomy.actor import Actor
from annotomy.annotations.errors import InvalidAnnotation
from annotomy.annotations.rights import Action
from annotomy.annotations.service import require_version, stand
from annotomy.db.engine import ReadTx
from annotomy.errors import Conflict, NotFound, TooLarge
from annotomy.events import Event, emit
from annotomy.services import Services

MAX_EVIDENCE_BYTES = 8 << 20
"""A picture of a whole screen as PNG."""
MAX_SIDE_PIXELS = 16384
MediaType = Literal["image/png", "image/jpeg"]
_MEDIA_TYPES: dict[str | None, MediaType] = {"PNG": "image/png", "JPEG": "image/jpeg"}


class Evidence(msgspec.Struct, frozen=True):
    version: int
    """Of the annotation, when the picture was taken."""
    media_type: MediaType
    bytes: int
    stale: bool
    """Whether the annotation's content has changed since."""
    created_by: UUID
    created_at: datetime


_SELECT = (
    "select e.version, e.media_type, e.bytes, exists (select from annotation_versions v where v.annotation_id = e.annotation_id"
    " and v.version > e.version and not v.changed <@ array['state', 'assigned_to']) as stale, e.created_by, e.created_at"
)


async def add_evidence(services: Services, actor: Actor, annotation_id: UUID, version: int, picture: bytes) -> Evidence:
    """To the version that stands. Raises EditConflict for an older one, Conflict when the version has another picture."""
    if len(picture) > MAX_EVIDENCE_BYTES:
        raise TooLarge("The picture is over the limit.", limit_bytes=MAX_EVIDENCE_BYTES)
    async with services.db.read(actor) as tx:  # before bytes are looked at or kept for who may not add them
        standing = await stand(tx, annotation_id, Action.EDIT, lock=False)
        await require_version(tx, standing, version, None)
    media_type = await asyncio.to_thread(_media_type, picture)
    blob = await services.blobs.put(picture)
    async with services.db.write(actor) as tx:
        standing = await stand(tx, annotation_id, Action.EDIT, lock=True)
        await require_version(tx, standing, version, None)
        await tx.execute(
            "insert into blobs (address, size) values ($1, $2) on conflict do nothing", blob.address, blob.size
        )
        made = await tx.fetchval(
            "insert into annotation_evidence (annotation_id, version, blob_address, media_type, bytes, created_by)"
            " values ($1, $2, $3, $4, $5, $6) on conflict do nothing returning blob_address",
            annotation_id, version, blob.address, media_type, len(picture), actor.user_id,
        )  # fmt: skip
        if made is None:
            if await _address(tx, annotation_id, version) != blob.address:
                raise Conflict("This version has another picture; it stays.", version=version)
        else:
            found = standing.annotation
            told = {"version": version, "study_instance_uid": found.study_instance_uid}
            await emit(
                tx,
                Event(
                    type="annotation.evidenced",
                    object_kind="annotation",
                    object_id=str(annotation_id),
                    project_id=found.project_id,
                    data=told,
                ),
            )
        row = await tx.fetchrow(
            f"{_SELECT} from annotation_evidence e where e.annotation_id = $1 and e.version = $2",
            annotation_id,
            version,
        )
    assert row is not None
    return Evidence(**dict(row))


async def list_evidence(tx: ReadTx, annotation_id: UUID) -> list[Evidence]:
    """The newest first."""
    await stand(tx, annotation_id, Action.READ, lock=False)
    rows = await tx.fetch(
        f"{_SELECT} from annotation_evidence e where e.annotation_id = $1 order by e.version desc", annotation_id
    )
    return [Evidence(**dict(row)) for row in rows]


async def read_evidence(services: Services, actor: Actor, annotation_id: UUID, version: int) -> tuple[bytes, str]:
    """The picture and its media type. Raises NotFound."""
    async with services.db.read(actor) as tx:
        await stand(tx, annotation_id, Action.READ, lock=False)
        row = await tx.fetchrow(
            "select blob_address, media_type from annotation_evidence where annotation_id = $1 and version = $2",
            annotation_id, version if version < 1 << 31 else 0,
        )  # fmt: skip
    if row is None:
        raise NotFound("This version has no picture.")
    return await services.blobs.read(row["blob_address"]), row["media_type"]


async def _address(tx: ReadTx, annotation_id: UUID, version: int) -> str | None:
    return await tx.fetchval(
        "select blob_address from annotation_evidence where annotation_id = $1 and version = $2", annotation_id, version
    )


def _media_type(picture: bytes) -> MediaType:
    """By the head of the file alone: nothing is decoded here. Raises InvalidAnnotation."""
    try:
        with Image.open(io.BytesIO(picture), formats=["PNG", "JPEG"]) as opened:
            size, media_type = opened.size, _MEDIA_TYPES[opened.format]
    except (OSError, ValueError, SyntaxError, KeyError, Image.DecompressionBombError) as error:
        raise InvalidAnnotation("Evidence is a PNG or JPEG picture.", field="") from error
    if max(size) > MAX_SIDE_PIXELS:
        raise InvalidAnnotation(f"A picture has at most {MAX_SIDE_PIXELS} pixels on a side.", field="")
    return media_type
