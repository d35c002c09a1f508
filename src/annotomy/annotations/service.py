"""Annotations are created, edited, deleted, restored and reviewed. Each of these is a new version; none removes one.

The row in `annotations` is what stands now, locked by whoever changes it; `annotation_versions` is all that ever stood.
An edit names the version that it starts from. Who comes second gets both contents and a merge, never an overwrite.
"""

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import msgspec
from pydicom.uid import generate_uid

from annotomy.annotations import rights, rows
from annotomy.annotations.errors import AnnotationDeleted, EditConflict, OwnReview, StateConflict
from annotomy.annotations.geometry import Geometry
from annotomy.annotations.labels import require_complete
from annotomy.annotations.merge import EDITABLE, apply_patch, changed_members, three_way
from annotomy.annotations.prepare import Prepared, Target
from annotomy.annotations.rights import Action
from annotomy.annotations.schemas import Annotation, Content
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import NotFound
from annotomy.events import Event, emit

Step = Literal["submit", "approve", "reject", "reopen"]

_FROM_STATES: dict[Step, tuple[str, ...]] = {
    "submit": ("draft", "rejected"),
    "approve": ("submitted",),
    "reject": ("submitted",),
    "reopen": ("submitted", "approved", "rejected"),
}
_TO_STATE: dict[Step, str] = {"submit": "submitted", "approve": "approved", "reject": "rejected", "reopen": "draft"}
_PAST = {"submit": "submitted", "approve": "approved", "reject": "rejected", "reopen": "reopened"}


@dataclass(frozen=True, slots=True)
class Standing:
    """An annotation as it stands, locked when it was read to be changed."""

    row: Any

    @property
    def annotation(self) -> Annotation:
        return rows.annotation(self.row)

    @property
    def target(self) -> Target:
        r = self.row
        return Target(
            r["project_id"], r["study_id"], r["study_instance_uid"], r["series_instance_uid"], r["sop_instance_uid"],
            r["frame_number"],
        )  # fmt: skip

    @property
    def prepared(self) -> Prepared:
        """The content as it stands, with what was measured on it."""
        content = rows.to_content(rows.content(self.annotation))
        mapped = self.row["mapped_geometry"]
        return Prepared(
            self.target,
            content,
            None if mapped is None else msgspec.json.decode(mapped, type=Geometry),
            tuple(content.measurements),
        )


# -- create and read -------------------------------------------------------------------------------------------------------


async def create(
    tx: WriteTx, prepared: Prepared, *, tracking_uid: str | None = None, why: str = "", action: str = "create"
) -> Annotation:
    """Version 1. Rights were asked by `prepare_new`."""
    target, content = prepared.target, prepared.content
    if target.study_id is None:
        # The study may arrive at this moment: its first instance waits for this transaction, or this one sees its row.
        await tx.fetchval("select pg_advisory_xact_lock_shared(hashtextextended($1, 0))", target.study_instance_uid)
    columns, after = _columns(prepared), _version_content(prepared, state="draft", deleted=False)
    filled = [name for name in EDITABLE if getattr(content, name)]
    row = await tx.fetchrow(
        f"""with a as (
          insert into annotations (id, project_id, study_id, study_instance_uid, series_instance_uid, sop_instance_uid,
            frame_number, tracking_uid, kind, geometry_type, geometry, mapped_geometry, label, attributes, measurements,
            description, created_by, updated_by)
          values ($1, $2, coalesce($3, {rights.FIND_TARGET.format(study="$4", project="$2", series="$5")}), $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $17)
          returning *),
        logged as (
          insert into annotation_versions (annotation_id, version, action, changed, content, why, created_by)
          values ($1, 1, $18, $19, $20, $21, $17))
        select {rows.ANNOTATION} from a join users u on u.id = a.created_by""",
        new_id(), target.project_id, target.study_id, target.study_instance_uid, target.series_instance_uid,
        target.sop_instance_uid, target.frame_number, tracking_uid or str(generate_uid(prefix=None)), content.kind, *columns,
        tx.actor.user_id, action, filled, after, why,
    )  # fmt: skip
    made = rows.annotation(row)
    await _tell(tx, "created", made, made.version)
    return made


async def get(tx: ReadTx, annotation_id: UUID) -> Annotation:
    """Raises NotFound, or AnnotationDeleted to who may read its history."""
    row = await tx.fetchrow(
        f"select {rows.ANNOTATION} from {rows.FROM} where a.id = $1 and {rights.readable('a')}", annotation_id
    )
    if row is None:
        raise NotFound("There is no such annotation.")
    found = rows.annotation(row)
    if found.deleted_at is not None:
        raise _deleted(found)
    return found


async def stand(tx: ReadTx, annotation_id: UUID, action: Action, *, lock: bool) -> Standing:
    """The annotation to act on, deleted ones included. Raises NotFound and Forbidden."""
    row = await tx.fetchrow(
        f"select {rows.ANNOTATION}, a.study_id from {rows.FROM} where a.id = $1 and {rights.readable('a')}"
        + (" for update of a" if lock else ""),
        annotation_id,
    )
    if row is None:
        raise NotFound("There is no such annotation.")
    await rights.require_right(tx, action, row["project_id"], owner_id=row["created_by"])
    return Standing(row)


# -- change ----------------------------------------------------------------------------------------------------------------


def patched(standing: Standing, patch: dict[str, Any]) -> Content:
    """What the edit asks for. Raises msgspec.ValidationError, StateConflict."""
    _require_editable(standing.annotation)
    return rows.to_content(apply_patch(rows.content(standing.annotation), patch))


async def edit(
    tx: WriteTx, annotation_id: UUID, prepared: Prepared, patch: dict[str, Any], *, expected_version: int, why: str = ""
) -> Annotation:
    """The next version, when `expected_version` still stands. Raises EditConflict with both contents and a merge."""
    standing = await stand(tx, annotation_id, Action.EDIT, lock=True)
    await require_version(tx, standing, expected_version, patch)
    _require_editable(standing.annotation)
    return await _next_version(tx, standing.annotation, prepared, "edit", state="draft", why=why)


async def delete(tx: WriteTx, annotation_id: UUID, *, expected_version: int, why: str = "") -> Annotation:
    """The version that says it is gone."""
    standing = await stand(tx, annotation_id, Action.DELETE, lock=True)
    await require_version(tx, standing, expected_version, None)
    found = standing.annotation
    _require_editable(found)
    return await _next_version(tx, found, standing.prepared, "delete", state=found.state, deleted=True, why=why)


async def restore(
    tx: WriteTx, annotation_id: UUID, version: int, *, expected_version: int | None = None, why: str = ""
) -> Annotation:
    """A new version with the content of an old one; also of a deleted annotation. Raises NotFound for no such version."""
    standing = await stand(tx, annotation_id, Action.EDIT, lock=True)
    if expected_version is not None:
        await require_version(tx, standing, expected_version, None)
    found = standing.annotation
    if found.state == "approved":
        raise StateConflict("What is approved is not changed. Reopen it first.", state=found.state)
    old = await _content_of(tx, annotation_id, version)
    if old is None:
        raise NotFound("The annotation has no such version.")
    content, computed = rows.to_content({name: old[name] for name in rows.content(found)}), old["mapped_geometry"]
    prepared = Prepared(
        standing.target,
        content,
        None if computed is None else msgspec.convert(computed, Geometry),
        tuple(content.measurements),
    )
    return await _next_version(tx, found, prepared, "restore", state="draft", why=why)


async def take_step(
    tx: WriteTx, annotation_id: UUID, step: Step, *, expected_version: int, why: str = ""
) -> Annotation:
    """Submit, approve, reject or reopen: a version of its own. The version named is the one that was looked at."""
    standing = await stand(tx, annotation_id, Action.READ, lock=True)
    found = standing.annotation
    await _require_step(tx, found, step)
    await require_version(tx, standing, expected_version, None)
    if found.deleted_at is not None:
        raise _deleted(found)
    if found.state not in _FROM_STATES[step]:
        raise StateConflict(
            f"One can {step} what is {' or '.join(_FROM_STATES[step])}; this is {found.state}.", state=found.state
        )
    prepared = standing.prepared
    if step == "submit":
        await require_complete(tx, found.project_id, prepared.content)
    return await _next_version(tx, found, prepared, step, state=_TO_STATE[step], why=why)


async def _require_step(tx: ReadTx, found: Annotation, step: Step) -> None:
    own = found.created_by == tx.actor.user_id
    if step == "submit" or (step == "reopen" and own and found.state != "approved"):
        await rights.require_right(tx, Action.EDIT, found.project_id, owner_id=found.created_by)
        return
    await rights.require_right(tx, Action.REVIEW, found.project_id, owner_id=found.created_by)
    if own and step in ("approve", "reject") and not await _may_review_own(tx, found.project_id):
        raise OwnReview("This project lets nobody review their own annotations.")


async def _may_review_own(tx: ReadTx, project_id: UUID) -> bool:
    return bool(await tx.fetchval("select review_own from annotation_settings where project_id = $1", project_id))


async def _next_version(
    tx: WriteTx, before: Annotation, prepared: Prepared, action: str, *, state: str, deleted: bool = False, why: str
) -> Annotation:
    after = _version_content(prepared, state=state, deleted=deleted)
    changed = changed_members(rows.content(before), msgspec.json.decode(after))
    changed += ["state"] * (state != before.state) + ["deleted"] * (deleted != (before.deleted_at is not None))
    row = await tx.fetchrow(
        f"""with a as (
          update annotations set kind = $2, geometry_type = $3, geometry = $4, mapped_geometry = $5, label = $6,
            attributes = $7, measurements = $8, description = $9, state = $10, updated_by = $11, updated_at = now(),
            deleted_at = case when $12 then now() end, version = version + 1
          where id = $1 returning *),
        logged as (
          insert into annotation_versions (annotation_id, version, action, changed, content, why, created_by)
          select $1, a.version, $13, $14, $15, $16, $11 from a)
        select {rows.ANNOTATION} from a join users u on u.id = a.created_by""",
        before.id, prepared.content.kind, *_columns(prepared), state, tx.actor.user_id, deleted, action, changed, after, why,
    )  # fmt: skip
    made = rows.annotation(row)
    told = {"edit": "edited", "delete": "deleted", "restore": "restored", **_PAST}[action]
    await _tell(tx, told, made, made.version)
    return made


def _columns(prepared: Prepared) -> tuple[Any, ...]:
    """From geometry_type to description, as the statements name them."""
    content = prepared.content
    return (
        content.geometry.type,
        _json(content.geometry),
        None if prepared.mapped_geometry is None else _json(prepared.mapped_geometry),
        None if content.label is None else _json(content.label),
        _json(content.attributes),
        _json(prepared.measurements),
        content.description,
    )


def _version_content(prepared: Prepared, *, state: str, deleted: bool) -> str:
    content = msgspec.structs.asdict(prepared.content)
    content |= {"mapped_geometry": prepared.mapped_geometry, "measurements": prepared.measurements}
    return _json(content | {"state": state, "deleted": deleted})


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# -- what stands in the way ------------------------------------------------------------------------------------------------


def _require_editable(found: Annotation) -> None:
    if found.deleted_at is not None:
        raise _deleted(found)
    if found.state == "approved":
        raise StateConflict("What is approved is not changed. Reopen it first.", state=found.state)


def _deleted(found: Annotation) -> AnnotationDeleted:
    return AnnotationDeleted("The annotation was deleted.", version=found.version, deleted_at=found.deleted_at)


async def require_version(tx: ReadTx, standing: Standing, expected: int, patch: dict[str, Any] | None) -> None:
    found = standing.annotation
    if found.version == expected:
        return
    last = await tx.fetchrow(
        "select v.created_at, v.why, u.username from annotation_versions v join users u on u.id = v.created_by"
        " where v.annotation_id = $1 and v.version = $2",
        found.id, found.version,
    )  # fmt: skip
    assert last is not None
    extras: dict[str, Any] = {
        "current_version": found.version,
        "current": found,
        "changed_by": last["username"],
        "changed_at": last["created_at"],
        "why": last["why"],
    }
    base = await _content_of(tx, found.id, expected)
    if base is not None:
        extras["base_version"], extras["base"] = expected, base
    if patch is not None and base is not None and found.deleted_at is None:
        merged, conflicts = three_way(base, rows.content(found), apply_patch(base, patch))
        extras |= {"yours": patch, "conflicts": conflicts, "mergeable": not conflicts}
        extras |= {} if conflicts else {"merged": merged}
    raise EditConflict("The annotation was changed since that version was read.", **extras)


async def _content_of(tx: ReadTx, annotation_id: UUID, version: int) -> dict[str, Any] | None:
    if not 0 < version < 1 << 31:
        return None
    return await tx.fetchval(
        "select content from annotation_versions where annotation_id = $1 and version = $2", annotation_id, version
    )


async def _tell(tx: WriteTx, what: str, found: Annotation, version: int) -> None:
    await emit(
        tx,
        Event(
            type=f"annotation.{what}",
            object_kind="annotation",
            object_id=str(found.id),
            project_id=found.project_id,
            data={"version": version, "study_instance_uid": found.study_instance_uid},
        ),
    )
