"""New versions of a segmentation: edits of masks and descriptions, changes of state, deleting and restoring.

A version is written as what differs from the one before; nothing that was saved is ever taken away. Every change names
the version that it starts from: a lost race is told with who, when and what, and never overwrites.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.errors import NotFound, PreconditionFailed
from annotomy.events import Event, emit
from annotomy.jobs.queue import enqueue
from annotomy.projects.access import Permission, require, require_own_or_all
from annotomy.segmentations import query
from annotomy.segmentations.archiving import ArchiveSegmentation
from annotomy.segmentations.body import Edit, decode
from annotomy.segmentations.bricks import Brick, BrickKey
from annotomy.segmentations.errors import SegmentationState, SegmentsInvalid
from annotomy.segmentations.importing import MAX_SEGMENTS, coded
from annotomy.segmentations.interchange import UNCODED, default_color
from annotomy.segmentations.query import PlacedBrick, Row, affine_of
from annotomy.segmentations.schemas import DescribedSegment
from annotomy.segmentations.segment import NewSegment
from annotomy.segmentations.service import require_segments, segment_row, write_bricks, write_segments
from annotomy.segmentations.statistics import statistics_of
from annotomy.services import Services

EDITABLE = frozenset({"proposal", "draft"})
"""Masks change in these states only; what is submitted or decided is reopened as a draft first."""

TRANSITIONS: dict[tuple[str, str], Permission] = {
    ("proposal", "draft"): Permission.SEGMENTATION_WRITE,
    ("proposal", "rejected"): Permission.SEGMENTATION_WRITE,
    ("draft", "submitted"): Permission.SEGMENTATION_WRITE,
    ("submitted", "draft"): Permission.SEGMENTATION_WRITE,
    ("submitted", "approved"): Permission.REVIEW,
    ("submitted", "rejected"): Permission.REVIEW,
    ("rejected", "draft"): Permission.SEGMENTATION_WRITE,
    ("approved", "draft"): Permission.REVIEW,
}
"""From a state to the next, and the permission that it takes."""


async def save_version(
    services: Services, actor: Actor, segmentation_id: UUID, *, base_version: int, body: bytes
) -> int:
    """The new version; the present one when nothing differs. Raises PreconditionFailed for a lost race."""
    async with services.db.read(actor) as tx:
        row = await editable(tx, segmentation_id, base_version)
    slices, rows, columns = row["shape_kji"]
    edit = await asyncio.to_thread(decode, body, (slices, rows, columns))
    return await save_edit(services, actor, segmentation_id, base_version=base_version, edit=edit)


async def save_edit(services: Services, actor: Actor, segmentation_id: UUID, *, base_version: int, edit: Edit) -> int:
    """The same, of what changed as bricks."""
    async with services.db.read(actor) as tx:
        row = await editable(tx, segmentation_id, base_version)
        before = await query.placed_bricks(tx, segmentation_id, base_version)
    segments = row["segments"] if edit.describe is None else _described(row, edit.describe)
    numbers = {segment["segment_number"] for segment in segments}
    unknown = {number for number, _ in edit.changed} - numbers
    if unknown:
        raise SegmentsInvalid(f"The masks name segment {min(unknown)}, which is none of this version's.")
    changed = {key: brick for key, brick in edit.changed.items() if _address(before, key) != (brick and brick.address)}
    changed |= {key: None for key in before if key[0] not in numbers}
    segments = _counted(row, segments, before, changed)
    gone = [old for old in row["segments"] if old["segment_number"] not in numbers]
    different = [segment for segment in segments if segment not in row["segments"]]
    if not changed and not different and not gone:
        return base_version
    async with services.db.write(actor) as tx:
        row = await editable(tx, segmentation_id, base_version)
        version = await _write_version(tx, row, state="draft", why=edit.why)
        await write_segments(tx, segmentation_id, version, different)
        await write_segments(tx, segmentation_id, version, gone, removed=True)
        await write_bricks(tx, segmentation_id, version, changed)
        await _tell(tx, row, "segmentation.edited", version, "draft", {"bricks": len(changed)})
    return version


async def restore_version(
    services: Services, actor: Actor, segmentation_id: UUID, *, base_version: int, version: int, why: str
) -> int:
    """Masks and segments as they were in `version`, as a new version; brings a deleted segmentation back."""
    async with services.db.write(actor) as tx:
        row = await editable(tx, segmentation_id, base_version, deleted=True)
        older = await query.get_version(tx, segmentation_id, version)
        now = await query.placed_bricks(tx, segmentation_id, base_version)
        then = await query.placed_bricks(tx, segmentation_id, version)
        changed = {key: then.get(key) for key in sorted(now.keys() | then.keys()) if now.get(key) != then.get(key)}
        restored = await _write_version(tx, row, state="draft", why=why or f"restored version {version}")
        numbers = {segment["segment_number"] for segment in older["segments"]}
        different = [segment for segment in older["segments"] if segment not in row["segments"]]
        gone = [segment for segment in row["segments"] if segment["segment_number"] not in numbers]
        await write_segments(tx, segmentation_id, restored, different)
        await write_segments(tx, segmentation_id, restored, gone, removed=True)
        await tx.executemany(
            "insert into segment_bricks (segmentation_id, since_version, segment_number, brick_index, address, counts)"
            " values ($1, $2, $3, $4, $5, $6)",
            [
                (segmentation_id, restored, *key, brick and brick.address, brick and list(brick.counts))
                for key, brick in changed.items()
            ],
        )
        await _tell(tx, row, "segmentation.restored", restored, "draft", {"restored_version": version})
    return restored


async def change_segmentation(
    tx: WriteTx,
    segmentation_id: UUID,
    *,
    base_version: int,
    state: str | None = None,
    label: str | None = None,
    why: str = "",
) -> int:
    """Another state (TRANSITIONS) or label, as a new version with the same masks."""
    row = await _locked(tx, segmentation_id, base_version)
    target = state or row["state"]
    if target != row["state"]:
        permission = TRANSITIONS.get((row["state"], target))
        if permission is None:
            raise SegmentationState(f"A segmentation that is {row['state']} does not become {target}.")
        await _require_transition(tx, permission, row)
    if label is not None and label != row["label"]:
        await _require_edit(tx, row)
        _require_state(row)
    if target == row["state"] and label in (None, row["label"]):
        await require(tx, tx.actor, Permission.SEGMENTATION_WRITE, row["project_id"])
        return base_version
    version = await _write_version(tx, row, state=target, label=label, why=why)
    changed = "segmentation.state_changed" if target != row["state"] else "segmentation.edited"
    await _tell(tx, row, changed, version, target, {"before": row["state"]})
    if changed == "segmentation.state_changed" and target == "approved":
        await enqueue(tx, ArchiveSegmentation(row["id"], version), project_id=row["project_id"])
    return version


async def delete_segmentation(tx: WriteTx, segmentation_id: UUID, *, base_version: int, why: str) -> int:
    """A version that says it is gone. Masks stay as long as a version needs them; what the archive holds of it stays there."""
    row = await _locked(tx, segmentation_id, base_version)
    await require_own_or_all(tx, tx.actor, "segmentation.delete", row["project_id"], row["created_by"])
    if row["state"] in ("submitted", "approved"):
        raise SegmentationState(f"The segmentation is {row['state']}; make it a draft again before it is deleted.")
    version = await _write_version(tx, row, state=row["state"], why=why, deleted=True)
    await _tell(tx, row, "segmentation.deleted", version, row["state"], {})
    return version


async def editable(tx: ReadTx, segmentation_id: UUID, base_version: int, *, deleted: bool = False) -> Row:
    """The present version, which must be the one that the asker read, in a state where masks change."""
    row = await _locked(tx, segmentation_id, base_version, deleted=deleted)
    await _require_edit(tx, row)
    _require_state(row)
    return row


async def _require_edit(tx: ReadTx, row: Row) -> None:
    """One's own or everybody's, as the role says. A proposal is nobody's yet: who may draw may take it up."""
    if row["state"] == "proposal":
        await require(tx, tx.actor, Permission.SEGMENTATION_WRITE, row["project_id"])
    else:
        await require_own_or_all(tx, tx.actor, "segmentation.edit", row["project_id"], row["created_by"])


async def _require_transition(tx: ReadTx, permission: Permission, row: Row) -> None:
    if permission is Permission.SEGMENTATION_WRITE:
        await _require_edit(tx, row)
    else:
        await require(tx, tx.actor, permission, row["project_id"])


def _require_state(row: Row) -> None:
    if row["state"] not in EDITABLE:
        raise SegmentationState(f"The segmentation is {row['state']}; make it a draft again before it is changed.")


async def _locked(tx: ReadTx, segmentation_id: UUID, base_version: int, *, deleted: bool = False) -> Row:
    """In a write the row is locked, so that of two editors one waits, and then sees that it lost.

    `deleted`: also one that is gone.
    """
    read = query.find_segmentation if deleted else query.get_segmentation
    row = await read(tx, segmentation_id)
    if isinstance(tx, WriteTx):
        await tx.execute("select from segmentations where id = $1 for update", segmentation_id)
        row = await read(tx, segmentation_id)
    if row["version"] != base_version:
        [last, *_] = await query.list_versions(tx, segmentation_id)
        if base_version > row["version"]:
            raise NotFound("There is no such version.")
        raise PreconditionFailed(
            "Someone saved another version meanwhile. Read it, put your change on it and save again.",
            current_version=row["version"],
            changed_by=last["created_by_name"],
            changed_at=last["created_at"].isoformat(),
            why=last["why"],
        )
    return row


def _described(row: Row, told: Sequence[DescribedSegment]) -> list[Row]:
    known = {segment["segment_number"]: segment for segment in row["segments"]}
    made: list[Row] = []
    for one in told:
        before = known.get(one.segment_number)
        code = coded(one.code) if one.code else _coded_of(before, "code")
        category = coded(one.category) if one.category else _coded_of(before, "category")
        color = one.color or (before["color"] if before else default_color(one.segment_number))
        algorithm = before and before["algorithm"] and (before["algorithm"]["name"], before["algorithm"]["version"])
        segment = NewSegment(one.segment_number, one.label, code, color, category, algorithm or None)
        made.append(segment_row(segment) | {"statistics": before["statistics"] if before else None})
        require_segments([segment])
    if not made or len({segment["segment_number"] for segment in made}) < len(made) or len(made) > MAX_SEGMENTS:
        raise SegmentsInvalid(f"Describe 1 to {MAX_SEGMENTS} segments, each once.")
    return sorted(made, key=lambda segment: segment["segment_number"])


def _coded_of(segment: Row | None, name: str) -> tuple[str, str, str]:
    if segment is None:
        return UNCODED
    return segment[name]["value"], segment[name]["scheme"], segment[name]["meaning"]


def _counted(
    row: Row,
    segments: Sequence[Row],
    before: Mapping[BrickKey, PlacedBrick],
    changed: Mapping[BrickKey, Brick | None],
) -> list[Row]:
    """The segments with statistics of the masks after the change; only what was touched is counted anew."""
    touched = {number for number, _ in changed}
    affine = affine_of(row)
    counted: list[Row] = []
    for segment in segments:
        number, statistics = segment["segment_number"], segment["statistics"]
        if number in touched or statistics is None:
            after = {**before, **changed}
            counts = {key[1]: b.counts for key, b in after.items() if key[0] == number and b is not None}
            statistics = statistics_of(counts, affine)
        counted.append(segment | {"statistics": statistics})
    return counted


def _address(bricks: Mapping[BrickKey, PlacedBrick], key: BrickKey) -> bytes | None:
    brick = bricks.get(key)
    return None if brick is None else brick.address


async def _write_version(
    tx: WriteTx, row: Row, *, state: str, why: str, label: str | None = None, deleted: bool = False
) -> int:
    version: int = row["version"] + 1
    name = row["label"] if label is None else label
    await tx.execute(
        "update segmentations set version = $2, state = $3, label = $4, updated_at = now(),"
        " deleted_at = case when $5 then now() end where id = $1",
        row["id"], version, state, name, deleted,
    )  # fmt: skip
    await tx.execute(
        "insert into segmentation_versions (segmentation_id, version, label, state, shape_kji, affine_lps, why, created_by,"
        " deleted) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        row["id"], version, name, state, row["shape_kji"], row["affine_lps"], why, tx.actor.user_id, deleted,
    )  # fmt: skip
    return version


async def _tell(tx: WriteTx, row: Row, what: str, version: int, state: str, more: dict[str, Any]) -> None:
    event = Event(
        type=what,
        object_kind="segmentation",
        object_id=str(row["id"]),
        project_id=row["project_id"],
        data={"version": version, "state": state, **more},
    )
    await emit(tx, event)
