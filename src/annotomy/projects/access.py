"""Every permission rule. `require` raises and never returns a verdict; reads of DICOM rows join the view `visibility`.

The view (first migration) is the one statement of who sees which study; row-level security reads it as well.
"""

from enum import StrEnum
from uuid import UUID

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx
from annotomy.errors import Forbidden, NotFound


class Permission(StrEnum):
    STUDY_READ = "study.read"
    STUDY_STORE = "study.store"
    STUDY_ASSIGN = "study.assign"
    ANNOTATION_READ = "annotation.read"
    ANNOTATION_WRITE = "annotation.write"
    SEGMENTATION_READ = "segmentation.read"
    SEGMENTATION_WRITE = "segmentation.write"
    REVIEW = "review"
    MODEL_RUN = "model.run"
    PROJECT_MANAGE = "project.manage"


_READ = frozenset({Permission.STUDY_READ, Permission.ANNOTATION_READ, Permission.SEGMENTATION_READ})
_ANNOTATE = _READ | {Permission.ANNOTATION_WRITE, Permission.SEGMENTATION_WRITE, Permission.MODEL_RUN}

ROLES: dict[str, frozenset[Permission]] = {
    "viewer": _READ,
    "annotator": _ANNOTATE,
    "blinded_reader": _ANNOTATE,
    "reviewer": _ANNOTATE | {Permission.REVIEW},
    "adjudicator": _ANNOTATE | {Permission.REVIEW},
    "data_manager": _READ | {Permission.STUDY_STORE, Permission.STUDY_ASSIGN},
    "project_admin": frozenset(Permission),
}


def visible_studies(study_id: str) -> str:
    """The predicate that every read of studies, series and instances carries; `study_id` is the SQL of the study's key."""
    return f"exists (select from visibility v where v.study_id = {study_id})"


async def require(tx: ReadTx, actor: Actor, permission: Permission, project_id: UUID) -> None:
    """Raises NotFound to who is not a member (the project's existence is theirs alone), else Forbidden."""
    role = await _role(tx, actor, project_id)
    if permission not in ROLES.get(role, frozenset()):
        raise Forbidden(
            f"Your role in this project lacks the permission {permission.value}.", permission=permission.value
        )


async def require_member(tx: ReadTx, actor: Actor, project_id: UUID) -> None:
    await _role(tx, actor, project_id)


async def require_study(tx: ReadTx, actor: Actor, project_id: UUID, study_instance_uid: str) -> int:
    """The study's key, when the project holds it and the actor is a member. Raises NotFound otherwise."""
    study_id: int | None = await tx.fetchval(
        "select s.id from studies s join visibility v on v.study_id = s.id and v.project_id = $2"
        " where s.study_instance_uid = $1",
        study_instance_uid, project_id,
    )  # fmt: skip
    if study_id is None:
        raise NotFound("There is no such study in this project.")
    return study_id


async def sees_study(tx: ReadTx, actor: Actor, study_id: int) -> bool:
    """For the store operation alone, which writes with row-level security open: may this study grow by the actor's hand?"""
    if actor.kind == "system":
        return True
    return await tx.fetchval(
        "select exists (select from project_studies ps join project_members m using (project_id) where ps.study_id = $1"
        " and m.user_id = $2 and (m.expires_at is null or m.expires_at > now()) and ($3::uuid is null or project_id = $3))",
        study_id, actor.user_id, actor.project_id,
    )  # fmt: skip


async def _role(tx: ReadTx, actor: Actor, project_id: UUID) -> str:
    role: str | None = None
    if actor.project_id is None or actor.project_id == project_id:
        role = await tx.fetchval(
            "select role from project_members where project_id = $1 and user_id = $2"
            " and (expires_at is null or expires_at > now())",
            project_id, actor.user_id,
        )  # fmt: skip
    if role is None:
        raise NotFound("There is no such project.")
    return role
