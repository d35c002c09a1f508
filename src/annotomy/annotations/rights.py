"""Who may do what with annotations: the one place where this feature asks `projects/access.py`.

A reading of rows carries `readable` and comes from `SEEN`; whatever it does not find does not exist for the actor. Annotations
on a study that the archive holds are seen by who sees the study, and the series where one is named, in the project; those
on images that live elsewhere, by the members whose role reads them.
"""

from enum import StrEnum
from uuid import UUID

from annotomy.db.engine import ReadTx
from annotomy.projects.access import Permission, require, require_own_or_all, visible_work


class Action(StrEnum):
    CREATE = "create"
    READ = "read"
    EDIT = "edit"
    DELETE = "delete"
    REVIEW = "review"
    MANAGE = "manage"


_OF_PROJECT = {
    Action.CREATE: Permission.ANNOTATION_WRITE,
    Action.READ: Permission.ANNOTATION_READ,
    Action.REVIEW: Permission.REVIEW,
    Action.MANAGE: Permission.PROJECT_MANAGE,
}


async def require_right(tx: ReadTx, action: Action, project_id: UUID, *, owner_id: UUID | None = None) -> None:
    """Raises NotFound where the object is not the actor's to know, else Forbidden.

    `owner_id` is the annotation's author: reading, editing and deleting tell one's own from everybody's.
    """
    if owner_id is not None and action in (Action.READ, Action.EDIT, Action.DELETE):
        await require_own_or_all(tx, tx.actor, f"annotation.{action.value}", project_id, owner_id)
        return
    await require(tx, tx.actor, _OF_PROJECT[action], project_id)


SEEN = """left join lateral (select true as yes from visibility v where v.study_id = a.study_id and v.project_id = a.project_id
 and (v.series_id is null or a.series_instance_uid is null
      or v.series_id = (select id from series where series_instance_uid = a.series_instance_uid and study_id = a.study_id))
 limit 1) seen on true"""
"""Joins each annotation `a` with whether its study, and its series, are visible. A lateral join, whose answer for the study
that most rows of a list share is remembered; as a condition, PostgreSQL would collect all visible studies for each list."""


def readable(alias: str) -> str:
    """The predicate that every read of annotations carries, besides the join `SEEN`."""
    return (
        f"({alias}.study_id is null or seen.yes)"
        f" and {visible_work('annotation', f'{alias}.project_id', f'{alias}.created_by')}"
    )


FIND_TARGET = """(select st.id from studies st join visibility v on v.study_id = st.id
 where st.study_instance_uid = {study} and v.project_id = {project}
 order by exists (select from series se where se.study_id = st.id and se.series_instance_uid = {series}) desc, st.id limit 1)"""
"""The key of the holding that an annotation is to hang on: the first that the actor sees in the project, of those with its series
if there are any. Null when there is none."""


async def find_target(
    tx: ReadTx, project_id: UUID, study_instance_uid: str, series_instance_uid: str | None
) -> int | None:
    """The key of the study that an annotation is to hang on, or None when the actor sees no such study in this project.

    Such an annotation is one of images that live elsewhere. A study that is here and hidden is answered like one that nobody
    has: whoever knows a UID does not learn whether the archive holds it.
    """
    return await tx.fetchval(
        f"select {FIND_TARGET.format(study='$1', project='$2', series='$3')}",
        study_instance_uid, project_id, series_instance_uid,
    )  # fmt: skip
