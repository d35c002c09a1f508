"""Projects, members, and which studies a project holds."""

from datetime import datetime
from uuid import UUID

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, NotFound
from annotomy.events import Event, emit
from annotomy.projects.access import ROLES, Permission, require
from annotomy.projects.schemas import Member, Project, ProjectStudy

_MINE = (
    "select p.id, p.name, p.description, m.role, p.created_at from projects p join project_members m on m.project_id = p.id"
    " where m.user_id = $1 and (m.expires_at is null or m.expires_at > now()) and ($2::uuid is null or p.id = $2)"
)


async def create_project(tx: WriteTx, *, name: str, description: str) -> Project:
    """The maker becomes its administrator."""
    if not name.strip() or len(name) > 200:
        raise BadRequest("A project's name has 1 to 200 characters.")
    project_id = await _insert(tx, name=name.strip(), description=description, inbox_of=None)
    await emit(
        tx, Event(type="project.created", object_kind="project", object_id=str(project_id), project_id=project_id)
    )
    return await get_project(tx, project_id)


async def list_projects(tx: ReadTx) -> list[Project]:
    rows = await tx.fetch(f"{_MINE} order by p.name, p.id limit 1000", tx.actor.user_id, tx.actor.project_id)
    return [Project(**dict(row)) for row in rows]


async def get_project(tx: ReadTx, project_id: UUID) -> Project:
    row = await tx.fetchrow(f"{_MINE} and p.id = $3", tx.actor.user_id, tx.actor.project_id, project_id)
    if row is None:
        raise NotFound("There is no such project.")
    return Project(**dict(row))


async def project_by_name(tx: ReadTx, name: str) -> Project:
    rows = await tx.fetch(
        f"{_MINE} and p.name = $3 order by p.created_at limit 1", tx.actor.user_id, tx.actor.project_id, name
    )
    if not rows:
        raise NotFound("There is no project of this name among yours.")
    return Project(**dict(rows[0]))


async def set_member(tx: WriteTx, project_id: UUID, *, user_id: UUID, role: str, expires_at: datetime | None) -> Member:
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    if role not in ROLES:
        raise BadRequest(f"There is no role of this name. Roles: {', '.join(ROLES)}.")
    if await tx.fetchval("select 1 from users where id = $1 and state <> 'deleted'", user_id) is None:
        raise NotFound("There is no such user.")
    await tx.execute(
        "insert into project_members (project_id, user_id, role, expires_at) values ($1, $2, $3, $4)"
        " on conflict (user_id, project_id) do update set role = excluded.role, expires_at = excluded.expires_at",
        project_id, user_id, role, expires_at,
    )  # fmt: skip
    await emit(
        tx,
        Event(
            type="member.set", object_kind="user", object_id=str(user_id), project_id=project_id, data={"role": role}
        ),
    )
    return next(member for member in await _members(tx, project_id) if member.user_id == user_id)


async def remove_member(tx: WriteTx, project_id: UUID, user_id: UUID) -> None:
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    done = await tx.fetchval(
        "delete from project_members where project_id = $1 and user_id = $2 returning user_id", project_id, user_id
    )
    if done is None:
        raise NotFound("There is no such member.")
    await emit(tx, Event(type="member.removed", object_kind="user", object_id=str(user_id), project_id=project_id))


async def list_members(tx: ReadTx, project_id: UUID) -> list[Member]:
    await require(tx, tx.actor, Permission.STUDY_READ, project_id)
    return await _members(tx, project_id)


async def assign_study(tx: WriteTx, project_id: UUID, study_instance_uid: str) -> ProjectStudy:
    """Puts a study that the actor can see into a project where the actor may assign."""
    await require(tx, tx.actor, Permission.STUDY_ASSIGN, project_id)
    study_id = await tx.fetchval("select id from studies where study_instance_uid = $1", study_instance_uid)
    if study_id is None:
        raise NotFound("There is no such study.")
    await hold_study(tx, project_id, study_id, added_by=tx.actor.user_id)
    await emit(
        tx, Event(type="study.assigned", object_kind="study", object_id=study_instance_uid, project_id=project_id)
    )
    added_at = await tx.fetchval(
        "select added_at from project_studies where project_id = $1 and study_id = $2", project_id, study_id
    )
    return ProjectStudy(study_instance_uid=study_instance_uid, added_at=added_at)


async def unassign_study(tx: WriteTx, project_id: UUID, study_instance_uid: str) -> None:
    await require(tx, tx.actor, Permission.STUDY_ASSIGN, project_id)
    done = await tx.fetchval(
        "delete from project_studies ps using studies s where s.id = ps.study_id and ps.project_id = $1"
        " and s.study_instance_uid = $2 returning s.id",
        project_id, study_instance_uid,
    )  # fmt: skip
    if done is None:
        raise NotFound("There is no such study in this project.")
    await emit(
        tx, Event(type="study.unassigned", object_kind="study", object_id=study_instance_uid, project_id=project_id)
    )


async def list_studies(tx: ReadTx, project_id: UUID) -> list[ProjectStudy]:
    await require(tx, tx.actor, Permission.STUDY_READ, project_id)
    rows = await tx.fetch(
        "select s.study_instance_uid, ps.added_at from project_studies ps join studies s on s.id = ps.study_id"
        " where ps.project_id = $1 order by ps.added_at desc, s.id limit 1000",
        project_id,
    )
    return [ProjectStudy(**dict(row)) for row in rows]


async def hold_study(tx: WriteTx, project_id: UUID, study_id: int, *, added_by: UUID) -> None:
    """The row alone; the caller has decided the right. Called by the store operation."""
    await tx.execute(
        "insert into project_studies (project_id, study_id, added_by) values ($1, $2, $3) on conflict do nothing",
        project_id, study_id, added_by,
    )  # fmt: skip


async def project_for_store(tx: WriteTx, actor: Actor, project_id: UUID | None) -> UUID:
    """Where something stored goes: the project named, else the credential's own, else the actor's inbox.

    Raises NotFound or Forbidden when the actor may not store there.
    """
    chosen = project_id or actor.project_id
    if chosen is not None:
        await require(tx, actor, Permission.STUDY_STORE, chosen)
        return chosen
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
    await tx.execute(
        "insert into project_members (project_id, user_id, role) values ($1, $2, 'project_admin')",
        project_id,
        tx.actor.user_id,
    )
    return project_id


async def _members(tx: ReadTx, project_id: UUID) -> list[Member]:
    rows = await tx.fetch(
        "select u.id as user_id, u.username, u.display_name, m.role, m.expires_at from project_members m"
        " join users u on u.id = m.user_id where m.project_id = $1 order by u.username",
        project_id,
    )
    return [Member(**dict(row)) for row in rows]
