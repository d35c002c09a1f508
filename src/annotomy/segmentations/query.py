"""Reading segmentations. Who sees one: a member of its project, while the project holds its study."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from annotomy.db.engine import ReadTx
from annotomy.errors import NotFound
from annotomy.http.pages import decode_cursor, encode_cursor
from annotomy.projects.access import Permission, require, visible_target, visible_work
from annotomy.segmentations.bricks import Brick, BrickKey, Counts, MaskSet
from annotomy.segmentations.errors import SegmentationDeleted

SEEN = f"{visible_target('g')} and {visible_work('segmentation', 'g.project_id', 'g.created_by')}"
"""The predicate that every read of `segmentations g` carries: its series is seen through its project, and the role reads
everybody's work or it is one's own."""

_COLUMNS = (
    "g.id, g.project_id, g.study_id, g.study_instance_uid, g.series_instance_uid, g.frame_of_reference_uid, g.label, g.state, g.version,"
    " g.prediction_id, g.created_by, g.created_at, g.updated_at, g.deleted_at, n.shape_kji, n.affine_lps, n.sop_instance_uid, n.created_at as made_at,"
    " (select u.username from users u where u.id = n.created_by) as made_by"
)
_FROM = " from segmentations g join segmentation_versions n on n.segmentation_id = g.id and n.version = g.version"
SEGMENT_COLUMNS = "segment_number, label, code, category, algorithm, color, statistics"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    project_id: UUID | None = None
    state: str | None = None
    deleted: bool = False
    """The deleted ones, instead of those that stand."""


async def list_segmentations(
    tx: ReadTx, wanted: Filter, *, limit: int, cursor: str | None
) -> tuple[list[Row], str | None, int]:
    """(rows with their segments, next cursor, total), the newest first."""
    if wanted.project_id is not None:
        await require(tx, tx.actor, Permission.SEGMENTATION_READ, wanted.project_id)
    conditions, values = [SEEN, f"g.deleted_at is {'not ' if wanted.deleted else ''}null"], list[Any]()
    for column in ("study_instance_uid", "series_instance_uid", "project_id", "state"):
        value = getattr(wanted, column)
        if value is not None:
            values.append(value)
            conditions.append(f"g.{column} = ${len(values)}")
    where = " and ".join(conditions)
    total: int = await tx.fetchval(f"select count(*) from segmentations g where {where}", *values)
    if cursor is not None:
        micros, last_id = decode_cursor(cursor, (int, str))
        values += [micros, str(last_id)]
        where += (
            f" and (g.created_at, g.id) < (timestamptz 'epoch' + ${len(values) - 1}::bigint * interval '1 microsecond',"
            f" ${len(values)}::uuid)"
        )
    values.append(limit + 1)
    rows = await tx.fetch(
        f"select {_COLUMNS}, (extract(epoch from g.created_at) * 1000000)::bigint as micros{_FROM} where {where}"
        f" order by g.created_at desc, g.id desc limit ${len(values)}",
        *values,
    )
    found = [dict(row) for row in rows[:limit]]
    following = encode_cursor(found[-1]["micros"], str(found[-1]["id"])) if len(rows) > limit else None
    for row in found:
        del row["micros"]
    return await _with_segments(tx, found), following, total


async def get_segmentation(tx: ReadTx, segmentation_id: UUID) -> Row:
    """The present version. Raises NotFound to who may not see it, SegmentationDeleted to who may read its versions."""
    found = await find_segmentation(tx, segmentation_id)
    if found["deleted_at"] is not None:
        raise SegmentationDeleted(
            "The segmentation was deleted.", version=found["version"], deleted_at=found["deleted_at"].isoformat()
        )
    return found


async def find_segmentation(tx: ReadTx, segmentation_id: UUID) -> Row:
    """The present version, also of one that was deleted. Raises NotFound to who may not see it."""
    row = await tx.fetchrow(f"select {_COLUMNS}{_FROM} where g.id = $1 and {SEEN}", segmentation_id)
    if row is None:
        raise NotFound("There is no such segmentation.")
    await require(tx, tx.actor, Permission.SEGMENTATION_READ, row["project_id"])
    [found] = await _with_segments(tx, [dict(row)])
    return found


async def get_version(tx: ReadTx, segmentation_id: UUID, version: int | None) -> Row:
    """The segmentation with the grid and segments of one of its versions (None: the present one).

    The versions of a deleted one are read by their number.
    """
    if version is None:
        return await get_segmentation(tx, segmentation_id)
    found = await find_segmentation(tx, segmentation_id)
    if version == found["version"]:
        return found
    row = await tx.fetchrow(
        "select n.version, n.label, n.state, n.shape_kji, n.affine_lps, n.sop_instance_uid, n.created_at as made_at,"
        " u.username as made_by from segmentation_versions n join users u on u.id = n.created_by"
        " where n.segmentation_id = $1 and n.version = $2",
        segmentation_id, version,
    )  # fmt: skip
    if row is None:
        raise NotFound("There is no such version.")
    [older] = await _with_segments(tx, [found | dict(row)])
    return older


async def list_versions(tx: ReadTx, segmentation_id: UUID) -> list[Row]:
    """The newest first, also of a segmentation that was deleted."""
    await find_segmentation(tx, segmentation_id)
    rows = await tx.fetch(
        "select n.segmentation_id as id, n.version, n.label, n.state, n.deleted, n.why, n.created_by, u.username as created_by_name, n.created_at,"
        " n.sop_instance_uid from segmentation_versions n join users u on u.id = n.created_by"
        " where n.segmentation_id = $1 order by n.version desc",
        segmentation_id,
    )
    return await _with_segments(tx, [dict(row) for row in rows])


async def _with_segments(tx: ReadTx, rows: list[Row]) -> list[Row]:
    segments = await tx.fetch(
        f"select w.id, w.version, {SEGMENT_COLUMNS} from unnest($1::uuid[], $2::integer[]) as w (id, version)"
        " cross join lateral (select distinct on (segment_number) * from segments"
        " where segmentation_id = w.id and since_version <= w.version order by segment_number, since_version desc) s"
        " where not removed order by segment_number",
        [row["id"] for row in rows], [row["version"] for row in rows],
    )  # fmt: skip
    of_version: dict[tuple[UUID, int], list[Row]] = {}
    for segment in segments:
        own = dict(segment)
        of_version.setdefault((own.pop("id"), own.pop("version")), []).append(own)
    for row in rows:
        row["segments"] = of_version.get((row["id"], row["version"]), [])
    return rows


_BRICKS_OF_VERSION = (
    "(select distinct on (segment_number, brick_index) segment_number, brick_index, address, counts from segment_bricks"
    " where segmentation_id = $1 and since_version <= $2 and ($3::integer[] is null or segment_number = any($3))"
    " order by segment_number, brick_index, since_version desc) s"
)


async def read_masks(
    tx: ReadTx, row: Row, segment_numbers: Sequence[int] | None = None, *, bricks_from_to: tuple[int, int] | None = None
) -> MaskSet:
    """The bricks of the version in `row`, which the caller got from `get_version`; of these segments, or of all.

    `bricks_from_to`: the first and last brick index, of a part of the slices.
    """
    bricks = await tx.fetch(
        f"select s.segment_number, s.brick_index, s.counts, b.address, b.data from {_BRICKS_OF_VERSION} join bricks b using (address)"
        " where s.brick_index between $4 and $5",
        row["id"], row["version"], segment_numbers, *(bricks_from_to or (0, 1 << 30)),
    )  # fmt: skip
    found: dict[BrickKey, Brick] = {
        (b["segment_number"], b["brick_index"]): Brick(b["address"], b["data"], tuple(b["counts"])) for b in bricks
    }
    slices, rows, columns = row["shape_kji"]
    return MaskSet((slices, rows, columns), found)


@dataclass(frozen=True, slots=True)
class PlacedBrick:
    """A brick of a version, without its data."""

    address: bytes
    counts: Counts


async def placed_bricks(tx: ReadTx, segmentation_id: UUID, version: int) -> dict[BrickKey, PlacedBrick]:
    """What a version consists of."""
    rows = await tx.fetch(
        f"select segment_number, brick_index, address, counts from {_BRICKS_OF_VERSION} where address is not null",
        segmentation_id, version, None,
    )  # fmt: skip
    return {
        (row["segment_number"], row["brick_index"]): PlacedBrick(row["address"], tuple(row["counts"])) for row in rows
    }


def segments_named(row: Row, segment_numbers: Sequence[int]) -> list[Row]:
    """These segments of the version in `row`. Raises NotFound."""
    found = [segment for segment in row["segments"] if segment["segment_number"] in segment_numbers]
    if len(found) < len(set(segment_numbers)):
        raise NotFound("The segmentation has no segment of this number.")
    return found


def affine_of(row: Row) -> NDArray[np.float64]:
    return np.array(row["affine_lps"], np.float64).reshape(4, 4)
