"""Interactive sessions: one person's hints at an object of one series, and the mask that they mean.

A mask is a function of the series and the hints, which are kept: after a restart of server or browser the same hints give
the same mask, whichever process computes it. Places are few, since each holds a volume open; whoever came first has one,
until the session ends or rests for ten minutes.
"""

import asyncio
import os
import struct
import time
from functools import cache
from typing import Any
from uuid import UUID

import msgspec
import numpy as np

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import NotFound
from annotomy.events import Event, emit
from annotomy.inference.predict import require_series
from annotomy.interactive.errors import WaitingForPlace
from annotomy.interactive.schemas import Hint, InteractiveSession, MaskHeader, Taken
from annotomy.interactive.strokes import rasterise
from annotomy.interactive.volumes import OpenVolumes, SharedVolume
from annotomy.interactive.walker_process import Region, Request, WalkerProcess
from annotomy.projects.access import Permission, require
from annotomy.segmentations import query
from annotomy.segmentations.body import BrickRange, EditHeader
from annotomy.segmentations.bricks import BRICK_SLICES, MaskSet, brick_count
from annotomy.segmentations.edit import save_version
from annotomy.segmentations.errors import MaskMismatch
from annotomy.services import Services

PLACES = 8
"""Sessions of the installation at once: each keeps a volume open in memory."""
REST_MINUTES = 10
"""A session that is not used for so long gives its place away; its hints stay for a day."""
KEEP_DAYS = 1
MAX_OF_ONE = 20
"""Sessions of one user; the oldest ends when one more begins."""

_OWN = (
    "select * from (select s.*, count(*) filter (where s.used_at > now() - $2 * interval '1 minute')"
    " over (order by s.queued_at, s.id rows between unbounded preceding and 1 preceding) as before"
    " from interactive_sessions s) placed where user_id = $1 order by created_at desc"
)


@cache
def _walker() -> WalkerProcess:
    return WalkerProcess()


@cache
def _volumes() -> OpenVolumes:
    """This process's; the sessions themselves are in the database, so that any process serves any of them."""
    return OpenVolumes()


async def begin(tx: WriteTx, project_id: UUID, series_instance_uid: str) -> InteractiveSession:
    """Raises NotFound for a project or series that the actor does not see, else Forbidden."""
    await require(tx, tx.actor, Permission.SEGMENTATION_WRITE, project_id)
    await require_series(tx, project_id, series_instance_uid)
    await tx.execute(
        "delete from interactive_sessions where used_at < now() - $2 * interval '1 day' or id in"
        " (select id from interactive_sessions where user_id = $1 order by used_at desc, id offset $3)",
        tx.actor.user_id, KEEP_DAYS, MAX_OF_ONE - 1,
    )  # fmt: skip
    session_id = new_id()
    await tx.execute(
        "insert into interactive_sessions (id, user_id, project_id, series_instance_uid) values ($1, $2, $3, $4)",
        session_id, tx.actor.user_id, project_id, series_instance_uid,
    )  # fmt: skip
    await emit(tx, _event("interactive-session.begun", session_id, project_id))
    return await get(tx, session_id)


async def get(tx: ReadTx, session_id: UUID) -> InteractiveSession:
    """One's own. Raises NotFound, also when the series is not seen any more."""
    found = [one for one in await list_own(tx) if one.id == session_id]
    if not found:
        raise NotFound("There is no such session.")
    await require_series(tx, found[0].project_id, found[0].series_instance_uid)
    return found[0]


async def list_own(tx: ReadTx) -> list[InteractiveSession]:
    rows = await tx.fetch(_OWN, tx.actor.user_id, REST_MINUTES)
    return [_session(row) for row in rows if tx.actor.reaches(row["project_id"])]


async def end(tx: WriteTx, session_id: UUID) -> None:
    """Raises NotFound."""
    session = await get(tx, session_id)
    await tx.execute("delete from interactive_sessions where id = $1", session_id)
    await emit(tx, _event("interactive-session.ended", session_id, session.project_id))


async def set_hints(services: Services, actor: Actor, session_id: UUID, hints: list[Hint]) -> None:
    """Kept before anything is computed of them. Raises NotFound."""
    async with services.db.write(actor) as tx:
        await get(tx, session_id)
        await tx.execute(
            "update interactive_sessions set hints = $2 where id = $1", session_id, msgspec.to_builtins(hints)
        )


async def mask_of(services: Services, actor: Actor, session_id: UUID) -> bytes:
    """A little-endian uint32 with the length of a JSON header (`MaskHeader`), the header, and the region's packed bits.

    Raises NotFound, WaitingForPlace, NothingPointedAt, a VolumeProblem, InteractiveFailed.
    """
    session = await _use(services, actor, session_id)
    started = time.perf_counter()
    volume, region = await _computed(services, actor, session)
    spent = round((time.perf_counter() - started) * 1000, 1)
    header = msgspec.json.encode(MaskHeader(volume.shape_kji, region.box, region.voxels, spent))
    return struct.pack("<I", len(header)) + header + region.bits


async def take(services: Services, actor: Actor, session_id: UUID, taken: Taken) -> int:
    """The mask as a new version of a segmentation of this series. Raises MaskMismatch, and what `save_version` raises."""
    session = await _use(services, actor, session_id)
    async with services.db.read(actor) as tx:
        row = await query.get_version(tx, taken.segmentation_id, taken.base_version)
        before = await query.read_masks(tx, row, [taken.segment_number])
    if row["series_instance_uid"] != session.series_instance_uid:
        raise MaskMismatch("The segmentation is of another series than the session.")
    volume, region = await _computed(services, actor, session)
    if volume.shape_kji != before.shape_kji or not np.allclose(query.affine_of(row), volume.affine_lps, atol=1e-3):
        raise MaskMismatch("The segmentation has a grid of its own; the mask lies on that of the images.")
    body = await asyncio.to_thread(_edit_body, before, region, taken)
    return await save_version(services, actor, taken.segmentation_id, base_version=taken.base_version, body=body)


async def _use(services: Services, actor: Actor, session_id: UUID) -> InteractiveSession:
    """Raises NotFound, WaitingForPlace. Who asks keeps their place; who rested too long stands behind the others."""
    async with services.db.write(actor) as tx:
        await get(tx, session_id)
        await tx.execute(
            "update interactive_sessions set used_at = now(), queued_at ="
            " case when used_at < now() - $2 * interval '1 minute' then now() else queued_at end where id = $1",
            session_id, REST_MINUTES,
        )  # fmt: skip
        session = await get(tx, session_id)
    if session.state == "waiting":
        raise WaitingForPlace("All places are taken.", position=session.position, retry_after_s=5)
    return session


async def _computed(services: Services, actor: Actor, session: InteractiveSession) -> tuple[SharedVolume, Region]:
    volume = await _volumes().get(services, actor, session.series_instance_uid)
    try:
        rows, box = rasterise(session.hints, volume.shape_kji)
        request = Request(volume.dtype, volume.shape_kji, volume.spacing_kji, len(rows), box)
        return volume, await asyncio.to_thread(_walker().segment, volume.descriptor, request, rows)
    finally:
        os.close(volume.descriptor)


def _edit_body(before: MaskSet, region: Region, taken: Taken) -> bytes:
    (first, j0, i0), (behind, j1, i1) = region.box
    mask = region.mask()
    touched = (
        range(brick_count(before.shape_kji))
        if taken.how == "replace"
        else range(first // BRICK_SLICES, -(-behind // BRICK_SLICES))
    )
    ranges, pieces, offset = list[BrickRange](), list[bytes](), 0
    for index in touched:
        slab = before.slab(taken.segment_number, index).copy()
        if taken.how == "replace":
            slab[:] = False
        low, high = max(first, index * BRICK_SLICES), min(behind, index * BRICK_SLICES + len(slab))
        if low < high:
            part = slab[low - index * BRICK_SLICES : high - index * BRICK_SLICES, j0:j1, i0:i1]
            found = mask[low - first : high - first]
            part[found] = taken.how != "remove"
        bits = np.packbits(slab, axis=None, bitorder="little").tobytes()
        ranges.append(BrickRange(taken.segment_number, index, offset, len(bits)))
        pieces.append(bits)
        offset += len(bits)
    header = msgspec.json.encode(EditHeader(before.shape_kji, bricks=ranges, why="interactive"))
    return struct.pack("<I", len(header)) + header + b"".join(pieces)


def _session(row: Any) -> InteractiveSession:
    waits = row["before"] >= PLACES
    return InteractiveSession(
        id=row["id"],
        project_id=row["project_id"],
        series_instance_uid=row["series_instance_uid"],
        state="waiting" if waits else "ready",
        position=row["before"] - PLACES + 1 if waits else 0,
        hints=msgspec.convert(row["hints"], list[Hint]),
        created_at=row["created_at"],
        used_at=row["used_at"],
    )


def _event(event_type: str, session_id: UUID, project_id: UUID) -> Event:
    return Event(type=event_type, object_kind="interactive-session", object_id=str(session_id), project_id=project_id)
