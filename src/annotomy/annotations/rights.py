"""Who may do what with annotations: the one place where this feature asks `projects/access.py`.

A reading of rows carries `readable`; whatever it does not find does not exist for the actor. Annotations on a study that
the archive holds are seen by who sees the study; those on images that live elsewhere, by the project's members.
"""

from enum import StrEnum
from uuid import UUID

from annotomy.db.engine import ReadTx
from annotomy.errors import NotFound
from annotomy.projects.access import Permission, require, visible_studies


class Action(StrEnum):
    CREATE = "create"
    READ = "read"
    EDIT = "edit"
    DELETE = "delete"
    REVIEW = "review"
    MANAGE = "manage"


_PERMISSIONS = {
    Action.CREATE: Permission.ANNOTATION_WRITE,
    Action.READ: Permission.ANNOTATION_READ,
    Action.EDIT: Permission.ANNOTATION_WRITE,
    Action.DELETE: Permission.ANNOTATION_WRITE,
    Action.REVIEW: Permission.REVIEW,
    Action.MANAGE: Permission.PROJECT_MANAGE,
}

_MEMBER = """exists (select from project_members m where m.project_id = {alias}.project_id
 and m.user_id = (select nullif(current_setting('app.actor', true), '')::uuid)
 and (m.expires_at is null or m.expires_at > now())
 and ((select nullif(current_setting('app.project', true), '')) is null
      or m.project_id = (select nullif(current_setting('app.project', true), '')::uuid)))"""


async def require_right(tx: ReadTx, action: Action, project_id: UUID, *, owner_id: UUID | None = None) -> None:
    """Raises NotFound where the project is not the actor's to know, else Forbidden. `owner_id` is the annotation's author."""
    del owner_id  # every right reaches everybody's annotations until rights tell own from all
    await require(tx, tx.actor, _PERMISSIONS[action], project_id)


def readable(alias: str) -> str:
    """The predicate that every read of annotations carries; `alias` is the table's in the statement."""
    return f"{_MEMBER.format(alias=alias)} and ({alias}.study_id is null or {visible_studies(f'{alias}.study_id')})"


async def require_target(tx: ReadTx, project_id: UUID, study_instance_uid: str) -> int | None:
    """The key of the study that an annotation is to hang on, or None when the archive does not hold it.

    Raises NotFound when it does, but the actor does not see it in this project: nobody writes on hidden studies.
    """
    row = await tx.fetchrow(
        "select stored_study($1) as study_id, exists (select from visibility v where v.project_id = $2"
        " and v.study_id = (select id from studies where study_instance_uid = $1)) as visible",
        study_instance_uid, project_id,
    )  # fmt: skip
    assert row is not None
    if row["study_id"] is not None and not row["visible"]:
        raise NotFound("There is no such study in this project.")
    return row["study_id"]
