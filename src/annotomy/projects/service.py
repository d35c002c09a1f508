"""Projects, and which studies, series and instances they hold."""

from datetime import datetime
from uuid import UUID

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx, WriteTx, unrestricted
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, Forbidden, NotFound
from annotomy.events import Event, emit
from annotomy.projects.access import (
    SHARES,
    VALID,
    Permission,
    first_study,
    require,
    require_holdings,
    require_scope,
    sees_whole_study,
    visible_instances,
    visible_series,
    visible_studies,
)
from annotomy.projects.members import add_founder
from annotomy.projects.schemas import Project, ProjectStudy
from annotomy.projects.visibility import settle_studies

_MINE = (
    "select p.id, p.name, p.description, m.role, p.created_at from projects p join project_members m on m.project_id = p.id"
    f" where m.user_id = $1 and {VALID} and ($2::uuid[] is null or p.id = any ($2))"
)


async def create_project(tx: WriteTx, *, name: str, description: str) -> Project:
    """The maker becomes its administrator."""
    if not name.strip() or len(name) > 200:
        raise BadRequest("A project's name has 1 to 200 characters.")
    if tx.actor.project_ids is not None:
        raise Forbidden("A key that is bound to projects makes no other.")
    project_id = await _insert(tx, name=name.strip(), description=description, inbox_of=None)
    await emit(
        tx, Event(type="project.created", object_kind="project", object_id=str(project_id), project_id=project_id)
    )
    return await get_project(tx, project_id)


async def list_projects(tx: ReadTx) -> list[Project]:
    rows = await tx.fetch(f"{_MINE} order by p.name, p.id limit 1000", tx.actor.user_id, tx.actor.project_ids)
    return [Project(**dict(row)) for row in rows]


async def get_project(tx: ReadTx, project_id: UUID) -> Project:
    row = await tx.fetchrow(f"{_MINE} and p.id = $3", tx.actor.user_id, tx.actor.project_ids, project_id)
    if row is None:
        raise NotFound("There is no such project.")
    return Project(**dict(row))


async def project_by_name(tx: ReadTx, name: str) -> Project:
    rows = await tx.fetch(
        f"{_MINE} and p.name = $3 order by p.created_at limit 1", tx.actor.user_id, tx.actor.project_ids, name
    )
    if not rows:
        raise NotFound("There is no project of this name among yours.")
    return Project(**dict(rows[0]))


# -- what a project holds ---------------------------------------------------------------------------------------------


async def assign_study(
    tx: WriteTx,
    project_id: UUID,
    study_instance_uid: str,
    *,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
    reason: str = "",
) -> ProjectStudy:
    """Puts a study, a series or an instance into a project where the actor may assign.

    It comes from projects whose studies the actor may bring into others, and no more of it comes than the actor sees there:
    else a rule would be left behind by a copy. Raises NotFound for what the actor does not see, Forbidden for what may not
    leave its project.
    """
    await require(tx, tx.actor, Permission.STUDY_ASSIGN, project_id)
    found = await tx.fetch(_FIND, study_instance_uid, series_instance_uid, sop_instance_uid)
    if not found:
        raise NotFound("There is no such study.")
    taken: list[tuple[int, Part]] = []
    for one in found:  # each holding that the actor sees
        parts = await tx.fetch(
            "select distinct v.series_id, v.instance_id from visibility v"
            f" where v.study_id = $1 and (v.project_id = $2 or {SHARES})",
            one["study_id"], project_id,
        )  # fmt: skip
        takeable = [(row["series_id"], row["instance_id"]) for row in parts]
        taken += [(one["study_id"], part) for part in _within(takeable, one["series_id"], one["instance_id"])]
    if not taken:
        raise Forbidden(
            f"Your role where the study lies lacks the permission {Permission.STUDY_SHARE.value}.",
            permission=Permission.STUDY_SHARE.value,
        )
    study_ids = sorted({study_id for study_id, _ in taken})
    await tx.executemany(_HOLD, [(project_id, study_id, *part, tx.actor.user_id) for study_id, part in taken])
    await settle_studies(tx, study_ids)
    data = {
        name: uid
        for name, uid in (("series_instance_uid", series_instance_uid), ("sop_instance_uid", sop_instance_uid))
        if uid
    }
    await emit(
        tx,
        Event(
            type="study.assigned",
            object_kind="study",
            object_id=study_instance_uid,
            project_id=project_id,
            study_id=study_ids[0],
            data=data,
            reason=reason,
        ),
    )
    added_at = await tx.fetchval(
        "select max(added_at) from project_studies where project_id = $1 and study_id = any($2)", project_id, study_ids
    )
    return ProjectStudy(study_instance_uid, added_at, series_instance_uid, sop_instance_uid)


_FIND = (
    "select distinct on (st.id) st.id as study_id, se.id as series_id, i.id as instance_id from studies st"
    " left join series se on se.study_id = st.id and ($2::text is not null or $3::text is not null)"
    f" and ($2::text is null or se.series_instance_uid = $2) and {visible_series('se')}"
    f" left join instances i on i.series_id = se.id and i.sop_instance_uid = $3 and {visible_instances('i')}"
    f" where st.study_instance_uid = $1 and {visible_studies('st.id')}"
    " and ($2::text is null or se.id is not null) and ($3::text is null or i.id is not null) order by st.id, i.id"
)

_HOLD = (
    "insert into project_items (project_id, study_id, study_at, series_id, instance_id, added_by)"
    " select $1, id, study_at, $3, $4, $5 from studies where id = $2"
    " on conflict (study_id, project_id, audience_id, coalesce(series_id, 0), coalesce(instance_id, 0)) do nothing"
)

Part = tuple[int | None, int | None]
"""(series, instance): both None is the whole study."""


def _within(parts: list[Part], series_id: int | None, instance_id: int | None) -> list[Part]:
    """Of the parts that may be taken, what lies within the study (None, None), a series or an instance of it."""
    asked = (series_id, instance_id)
    if asked in parts or (None, None) in parts or (instance_id is not None and (series_id, None) in parts):
        return [asked]
    if series_id is None:
        return parts
    return [part for part in parts if part[0] == series_id and instance_id is None]


async def unassign_study(
    tx: WriteTx,
    project_id: UUID,
    study_instance_uid: str,
    *,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
    reason: str = "",
) -> None:
    """Takes a study out with all its parts; with a series or an instance named, the assignment of just that."""
    await require(tx, tx.actor, Permission.STUDY_ASSIGN, project_id)
    study_ids = await require_holdings(tx, project_id, study_instance_uid)
    async with unrestricted(tx):
        leaving = await tx.fetch(
            "select ps.study_id, ps.series_id, ps.instance_id from project_studies ps"
            " where ps.project_id = $1 and ps.study_id = any($2)"
            " and ($3::text is null or ps.series_id ="
            " (select se.id from series se where se.series_instance_uid = $3 and se.study_id = ps.study_id))"
            " and ($4::text is null or ps.instance_id ="
            " (select i.id from instances i where i.sop_instance_uid = $4 and i.study_id = ps.study_id))"
            " and ($3::text is null or $4::text is not null or ps.instance_id is null)",
            project_id, study_ids, series_instance_uid, sop_instance_uid,
        )  # fmt: skip
    if not leaving:
        raise NotFound("There is no such study in this project.")
    await emit(  # while the project holds it: the audit's record tells whose study it was
        tx,
        Event(
            type="study.unassigned",
            object_kind="study",
            object_id=study_instance_uid,
            project_id=project_id,
            study_id=study_ids[0],
            reason=reason,
        ),
    )
    await tx.executemany(
        "delete from project_studies where project_id = $1 and study_id = $2 and series_id is not distinct from $3"
        " and instance_id is not distinct from $4",
        [(project_id, row["study_id"], row["series_id"], row["instance_id"]) for row in leaving],
    )
    await settle_studies(tx, study_ids)


async def list_studies(
    tx: ReadTx, project_id: UUID, *, limit: int, after: tuple[datetime, int] | None
) -> tuple[list[ProjectStudy], tuple[datetime, int] | None, int]:
    """What the project holds and the actor sees of it, newest assignment first; where to go on; how many studies in all."""
    await require(tx, tx.actor, Permission.STUDY_READ, project_id)
    rows = await tx.fetch(
        f"{_LIST} and ($3::timestamptz is null or (ps.added_at, st.id) < ($3::timestamptz, $4::bigint))"
        " order by ps.added_at desc, st.id desc, se.id, i.id limit $2 + 1",
        project_id, limit, *(after or (None, None)),
    )  # fmt: skip
    total = await tx.fetchval(
        "select (select count(*) from (select distinct pi.study_at, pi.study_id from actor_audiences a join project_items pi"
        " on pi.project_id = a.project_id and pi.audience_id = a.audience_id where a.project_id = $1) seen)"
        f" - (select count(*) from studies st where st.repeated and {visible_studies('st.id', project='$1')}"
        f" and not {first_study('st', project='$1')})",
        project_id,
    )
    found = [
        ProjectStudy(row["study_instance_uid"], row["added_at"], row["series_instance_uid"], row["sop_instance_uid"])
        for row in rows[:limit]
    ]
    last = rows[limit - 1] if len(rows) > limit else None
    return found, None if last is None else (last["added_at"], last["study_id"]), total


_LIST = (
    "select st.id as study_id, st.study_instance_uid, ps.added_at, se.series_instance_uid, i.sop_instance_uid"
    " from project_studies ps join studies st on st.id = ps.study_id left join series se on se.id = ps.series_id"
    f" left join instances i on i.id = ps.instance_id where ps.project_id = $1 and {visible_studies('st.id', project='$1')}"
    " and (ps.series_id is not null or not st.repeated or st.id = (select min(fst.id) from studies fst"
    " join project_studies fps on fps.study_id = fst.id and fps.project_id = $1 and fps.series_id is null"
    f" where fst.study_instance_uid = st.study_instance_uid and {visible_studies('fst.id', project='$1')}))"
    f" and (ps.series_id is null or se.id is not null and {visible_series('se', project='$1')})"
    f" and (ps.instance_id is null or i.id is not null and {visible_instances('i', project='$1')})"
)


async def hold_study(tx: WriteTx, project_id: UUID, study_id: int, *, added_by: UUID) -> None:
    """The row alone; the caller has decided the right and settles the study. Called by the store operation."""
    await tx.execute(_HOLD, project_id, study_id, None, None, added_by)


async def hold_instances(
    tx: WriteTx, project_id: UUID, study_id: int, sop_instance_uids: list[str], *, added_by: UUID
) -> None:
    """As `hold_study`, of instances that somebody brought into a study which they do not hold themselves."""
    await tx.execute(
        "insert into project_items (project_id, study_id, study_at, series_id, instance_id, added_by)"
        " select $1, st.id, st.study_at, i.series_id, i.id, $4 from studies st join instances i on i.study_id = st.id"
        " where st.id = $2 and i.sop_instance_uid = any($3)"
        " and not exists (select from project_studies ps where ps.project_id = $1 and ps.study_id = $2 and ps.instance_id is null"
        " and (ps.series_id is null or ps.series_id = i.series_id))"
        " on conflict (study_id, project_id, audience_id, coalesce(series_id, 0), coalesce(instance_id, 0)) do nothing",
        project_id, study_id, sop_instance_uids, added_by,
    )  # fmt: skip


async def bring_instances(tx: WriteTx, project_id: UUID, study_id: int, sop_instance_uids: list[str]) -> None:
    """Puts instances that the actor may take (`takeable_instances`) into a project; the study, where all of it may be taken."""
    async with unrestricted(tx):
        if await sees_whole_study(tx, tx.actor, study_id):
            await hold_study(tx, project_id, study_id, added_by=tx.actor.user_id)
        else:
            await hold_instances(tx, project_id, study_id, sop_instance_uids, added_by=tx.actor.user_id)
        await settle_studies(tx, [study_id])


async def project_for_store(tx: WriteTx, actor: Actor, project_id: UUID | None) -> UUID:
    """Where something stored goes: the project named, else the credential's own, else the actor's inbox.

    Raises NotFound or Forbidden when the actor may not store there.
    """
    chosen = project_id or actor.sole_project_id
    if chosen is not None:
        await require(tx, actor, Permission.STUDY_STORE, chosen)
        return chosen
    require_scope(actor, Permission.STUDY_STORE)
    inbox: UUID | None = await tx.fetchval("select id from projects where inbox_of = $1", actor.user_id)
    if inbox is None:
        await tx.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", str(actor.user_id))
        inbox = await tx.fetchval("select id from projects where inbox_of = $1", actor.user_id)
    return inbox or await _insert(tx, name="inbox", description="", inbox_of=actor.user_id)


async def _insert(tx: WriteTx, *, name: str, description: str, inbox_of: UUID | None) -> UUID:
    project_id = new_id()
    await tx.execute(
        "insert into projects (id, name, description, inbox_of, created_by) values ($1, $2, $3, $4, $5)",
        project_id, name, description, inbox_of, tx.actor.user_id,
    )  # fmt: skip
    await add_founder(tx, project_id, tx.actor.user_id)
    return project_id
