"""Creating segmentations. Order: bricks, statistics and the SEG are made and the SEG's bytes are durable; then one
transaction writes everything, the SEG's place in the archive and the caller's own rows included.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray

import annotomy
from annotomy.actor import Actor
from annotomy.archive.store import Incoming, keep_derived, write_derived
from annotomy.archive.volume import VolumeSource
from annotomy.db.engine import WriteTx
from annotomy.db.identifiers import new_id
from annotomy.dicom.seg import Coded, SegIdentity
from annotomy.events import Event, emit
from annotomy.projects.access import Permission, require, require_study
from annotomy.segmentations.bricks import Brick, BrickKey, MaskSet, of_labels, of_masks
from annotomy.segmentations.errors import MaskMismatch, SegmentsInvalid
from annotomy.segmentations.seg_file import seg_of
from annotomy.segmentations.segment import NewSegment
from annotomy.segmentations.statistics import Statistics, statistics_of
from annotomy.services import Services

MAX_SEGMENT_NUMBER = 65535
"""SegmentNumber is US (PS3.3 C.8.20.2)."""
_SERIES_NUMBER = 9000
"""Derived series stand behind the images."""
_COLOR = re.compile(r"^#[0-9a-fA-F]{6}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSegmentation:
    """Masks of a series: a label map, or one mask for each segment where they overlap; both [k, j, i] on its grid.

    A segment without any voxel stays. `id` makes the operation idempotent: a second call of the same id changes nothing.
    """

    project_id: UUID
    source: VolumeSource
    segments: Sequence[NewSegment]
    labels: NDArray[Any] | None = None
    masks: Mapping[int, NDArray[np.bool_]] | None = None
    bricks: MaskSet | None = None
    """Masks that are bricks already, in place of both."""
    label: str = ""
    state: Literal["proposal", "draft"] = "draft"
    prediction_id: UUID | None = None
    why: str = ""
    id: UUID | None = None
    kept_as: str | None = None
    """SOP Instance UID of a SEG in the archive that shows these masks already: none is written then."""


async def create_segmentation(
    services: Services,
    actor: Actor,
    new: NewSegmentation,
    *,
    within: Callable[[WriteTx, UUID], Awaitable[None]] | None = None,
) -> UUID:
    """Version 1 with its DICOM SEG in the archive. `within` runs in the same transaction: what it raises undoes all.

    Raises NotFound, Forbidden, MaskMismatch or SegmentsInvalid.
    """
    source, segmentation_id = new.source, new.id or new_id()
    _require_valid(new)
    async with services.db.read(actor) as tx:
        await require(tx, actor, Permission.SEGMENTATION_WRITE, new.project_id)
        study_id = await require_study(
            tx,
            actor,
            new.project_id,
            source.study_instance_uid,
            series_instance_uid=source.series_instance_uid,
        )
        if await tx.fetchval("select 1 from segmentations where id = $1", segmentation_id):
            return segmentation_id
    made_at = services.clock.now()
    masks, statistics, seg = await asyncio.to_thread(_make, new, segmentation_id, made_at, actor.name)
    kept = None if seg is None else await keep_derived(services, Incoming("segmentation.dcm", data=seg))
    async with services.db.write(actor, unrestricted=True) as tx:
        await require(tx, actor, Permission.SEGMENTATION_WRITE, new.project_id)
        made = await tx.fetchval(
            "insert into segmentations (id, project_id, study_instance_uid, series_instance_uid, frame_of_reference_uid, label,"
            " state, prediction_id, created_by, created_at, updated_at, study_id)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11)"
            " on conflict (id) do nothing returning id",
            segmentation_id, new.project_id, source.study_instance_uid, source.series_instance_uid,
            source.frame_of_reference_uid, new.label, new.state, new.prediction_id, actor.user_id, made_at,
            study_id,
        )  # fmt: skip
        if made is None:  # another call of the same id was first
            return segmentation_id
        sop_instance_uid = new.kept_as
        if kept is not None:
            sop_instance_uid = (await write_derived(tx, new.project_id, study_id, kept)).sop_instance_uid
        await tx.execute(
            "insert into segmentation_versions (segmentation_id, version, label, state, shape_kji, affine_lps,"
            " sop_instance_uid, why, created_by, created_at) values ($1, 1, $2, $3, $4, $5, $6, $7, $8, $9)",
            segmentation_id, new.label, new.state, list(masks.shape_kji), [float(v) for v in source.affine_lps.flat],
            sop_instance_uid, new.why, actor.user_id, made_at,
        )  # fmt: skip
        rows = [segment_row(segment) for segment in new.segments]
        for row in rows:
            row["statistics"] = statistics[row["segment_number"]]
        await write_segments(tx, segmentation_id, 1, rows)
        await write_bricks(tx, segmentation_id, 1, dict(masks.bricks))
        event = Event(
            type="segmentation.created",
            object_kind="segmentation",
            object_id=str(segmentation_id),
            project_id=new.project_id,
            data={"version": 1, "state": new.state, "series_instance_uid": source.series_instance_uid},
        )
        await emit(tx, event)
        if within is not None:
            await within(tx, segmentation_id)
    return segmentation_id


def _require_valid(new: NewSegmentation) -> None:
    arrays = [new.labels] if new.labels is not None else list((new.masks or {}).values())
    shapes = [array.shape for array in arrays] + ([new.bricks.shape_kji] if new.bricks is not None else [])
    if any(shape != new.source.shape_kji for shape in shapes):
        raise MaskMismatch("The masks have another number of slices, rows or columns than the series.")
    require_segments(new.segments)
    masked = {number for number, _ in new.bricks.bricks} if new.bricks is not None else set(new.masks or {})
    unknown = masked - {segment.number for segment in new.segments}
    if unknown:
        raise SegmentsInvalid(f"A mask has the number {min(unknown)}, which is no segment.")


def require_segments(segments: Sequence[NewSegment]) -> None:
    """Raises SegmentsInvalid."""
    if not segments:
        raise SegmentsInvalid("A segmentation has at least one segment.")
    seen: set[int] = set()
    for segment in segments:
        number = segment.number
        if not 1 <= number <= MAX_SEGMENT_NUMBER or number in seen:
            raise SegmentsInvalid(f"The segment number {number} is out of range or used twice.")
        if not segment.label.strip() or not _COLOR.match(segment.color):
            raise SegmentsInvalid(f"Segment {number} needs a label and a colour of the form #rrggbb.")
        for value, scheme, meaning in (segment.code, segment.category):
            if not (0 < len(value) <= 16 and 0 < len(scheme) <= 16 and 0 < len(meaning) <= 64):
                raise SegmentsInvalid(
                    f"A code of segment {number} lacks value, scheme or meaning, or they are too long."
                )
        seen.add(number)


def _make(
    new: NewSegmentation, segmentation_id: UUID, made_at: datetime, creator: str
) -> tuple[MaskSet, dict[int, Statistics], bytes | None]:
    numbers = [segment.number for segment in new.segments]
    if new.bricks is not None:
        masks = new.bricks
    elif new.labels is not None:
        masks = of_labels(new.labels, numbers)
    else:
        masks = of_masks(new.masks or {}, new.source.shape_kji)
    statistics = {n: statistics_of(masks.counts(n), new.source.affine_lps) for n in numbers}
    if new.kept_as is not None:
        return masks, statistics, None
    identity = seg_identity(segmentation_id, 1, new.label, made_at, creator)
    return masks, statistics, seg_of(masks, new.segments, new.source, identity)


def seg_identity(
    segmentation_id: UUID, version: int, label: str, made_at: datetime, creator: str, *, form: str = "BINARY"
) -> SegIdentity:
    """UUID-derived UIDs (PS3.5 B.2): one series for each form of the segmentation, one instance for each version."""
    series = segmentation_id if form == "BINARY" else uuid5(segmentation_id, form)
    return SegIdentity(
        series_instance_uid=f"2.25.{series.int}",
        sop_instance_uid=f"2.25.{uuid5(series, f'version {version}').int}",
        series_number=_SERIES_NUMBER,
        instance_number=version,
        description=label or "Segmentation",
        made_at=made_at,
        software_version=annotomy.__version__,
        creator=creator,
    )


def segment_row(segment: NewSegment) -> dict[str, Any]:
    return {
        "segment_number": segment.number,
        "label": segment.label,
        "code": code_json(segment.code),
        "category": code_json(segment.category),
        "algorithm": None
        if segment.algorithm is None
        else dict(zip(("name", "version"), segment.algorithm, strict=True)),
        "color": segment.color.lower(),
    }


def code_json(code: Coded) -> dict[str, str]:
    return dict(zip(("value", "scheme", "meaning"), code, strict=True))


async def write_segments(
    tx: WriteTx, segmentation_id: UUID, version: int, rows: Sequence[dict[str, Any]], *, removed: bool = False
) -> None:
    """What segments are since this version."""
    await tx.executemany(
        "insert into segments (segmentation_id, since_version, segment_number, label, code, category, algorithm, color,"
        " statistics, removed) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        [
            (
                segmentation_id, version, row["segment_number"], row["label"], row["code"], row["category"],
                row["algorithm"], row["color"], row["statistics"], removed,
            )
            for row in rows
        ],
    )  # fmt: skip


async def write_bricks(
    tx: WriteTx, segmentation_id: UUID, version: int, changed: Mapping[BrickKey, Brick | None]
) -> None:
    """The bricks that are others since this version (None: without a voxel). What is stored already is shared.

    In one order for everyone, so that no two writers wait for each other in a circle.
    """
    by_address = {brick.address: brick.data for brick in changed.values() if brick is not None}
    await tx.executemany(
        "insert into bricks (address, data) values ($1, $2) on conflict do nothing", sorted(by_address.items())
    )
    await tx.executemany(
        "insert into segment_bricks (segmentation_id, since_version, segment_number, brick_index, address, counts)"
        " values ($1, $2, $3, $4, $5, $6)",
        [
            (segmentation_id, version, *key, brick and brick.address, brick and list(brick.counts))
            for key, brick in sorted(changed.items())
        ],
    )
