"""Who belongs to a project, in which role and for how long; groups that bring their people; a project's own roles.

A membership of one's own decides alone, even after it has expired; without one, the group that was given its role in the
project first decides. `project_members` holds the outcome, one row for each person, with the role's permissions in it.
"""

import re
from datetime import datetime
from typing import Any
from uuid import UUID

from annotomy.actor import SYSTEM
from annotomy.db.engine import Database, ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, Conflict, NotFound
from annotomy.events import Event, emit
from annotomy.projects.access import VALID, Permission, require, require_global, require_holding, require_member
from annotomy.projects.errors import LastAdministrator, RoleInUse
from annotomy.projects.roles import PERMISSIONS, ROLE_ENTRIES, ROLES
from annotomy.projects.schemas import Candidate, Group, Member, ProjectGroup, Role, RoleLabel
from annotomy.projects.visibility import lock_policy, settle_project

MAX_GROUP_MEMBERS = 10_000
"""A group's change settles every project of the group in one transaction."""
MAX_ROLES = 100
MIN_SEARCH, MAX_SEARCH = 2, 100
"""Characters of a name that is looked for: one letter would list the whole house. Korean names have two syllables at least."""
MAX_CANDIDATES = 20
"""What one chooses from at a glance; more letters narrow it."""
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,63}$")


# -- members ----------------------------------------------------------------------------------------------------------


async def list_members(tx: ReadTx, project_id: UUID) -> list[Member]:
    await require_member(tx, tx.actor, project_id)
    rows = await tx.fetch(f"{_MEMBERS} order by u.username, u.id", project_id)
    return [Member(**dict(row)) for row in rows]


async def set_member(
    tx: WriteTx,
    project_id: UUID,
    *,
    user_id: UUID,
    role: str,
    valid_from: datetime | None = None,
    expires_at: datetime | None = None,
) -> Member:
    """Adds a member, or changes one. Raises LastAdministrator when nobody would be left to manage the project."""
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    require_order(valid_from, expires_at)
    if await tx.fetchval("select 1 from users where id = $1 and state <> 'deleted'", user_id) is None:
        raise NotFound("There is no such user.")
    await require_holding(tx, tx.actor, await permissions_of(tx, project_id, role), project_id)
    await put_member(tx, project_id, user_id=user_id, role=role, valid_from=valid_from, expires_at=expires_at)
    await require_administrator(tx, project_id)
    data = {"role": role, "valid_from": valid_from, "expires_at": expires_at}
    data = {name: str(value) for name, value in data.items() if value is not None}
    await emit(
        tx,
        Event(type="member.set", object_kind="user", object_id=str(user_id), project_id=project_id, data=data),
    )
    row = await tx.fetchrow(f"{_MEMBERS} and m.user_id = $2", project_id, user_id)
    assert row is not None
    return Member(**dict(row))


async def put_member(
    tx: WriteTx, project_id: UUID, *, user_id: UUID, role: str, valid_from: datetime | None, expires_at: datetime | None
) -> None:
    """The row and what is seen by it; the caller has decided the right. Raises BadRequest for a role that nobody knows."""
    await lock_policy(tx, project_id)
    permissions = await permissions_of(tx, project_id, role)
    await tx.execute(PUT_MEMBER, project_id, user_id, role, permissions, valid_from, expires_at)
    await settle_project(tx, project_id)


PUT_MEMBER = (
    "insert into project_members (project_id, user_id, role, permissions, ruled, valid_from, expires_at)"
    " select id, $2, $3, $4, ruled, $5, $6 from projects where id = $1 on conflict (user_id, project_id) do update set"
    " role = excluded.role, permissions = excluded.permissions, via_group = null, audience_id = 0,"
    " valid_from = excluded.valid_from, expires_at = excluded.expires_at"
)
"""A membership of one's own: project, user, role, its permissions, from when, until when. The project is settled after it."""


async def take_member(tx: WriteTx, project_id: UUID, user_id: UUID) -> bool:
    """The row of one's own alone, as `put_member`; a group may bring the person still. False when there was none."""
    await lock_policy(tx, project_id)
    taken = await tx.fetchval(
        "delete from project_members where project_id = $1 and user_id = $2 and via_group is null returning true",
        project_id, user_id,
    )  # fmt: skip
    await settle_groups(tx, project_id)
    return bool(taken)


async def remove_member(tx: WriteTx, project_id: UUID, user_id: UUID) -> None:
    """What a group brings stays: take the group out, or give the person a membership of their own."""
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    await lock_policy(tx, project_id)
    via_group = await tx.fetchrow(
        "select via_group from project_members where project_id = $1 and user_id = $2", project_id, user_id
    )
    if via_group is None:
        raise NotFound("There is no such member.")
    if via_group["via_group"] is not None:
        raise Conflict("The person is a member through a group. Take them out of the group.")
    await take_member(tx, project_id, user_id)
    await require_administrator(tx, project_id)
    await emit(tx, Event(type="member.removed", object_kind="user", object_id=str(user_id), project_id=project_id))


_MEMBERS = (
    "select u.id as user_id, u.username, u.display_name, m.role, m.valid_from, m.expires_at, m.via_group"
    " from project_members m join users u on u.id = m.user_id where m.project_id = $1"
)


async def find_candidates(tx: ReadTx, project_id: UUID, search: str) -> list[Candidate]:
    """People and groups whose name holds the text, for who gives roles; no mail address, and no list of everybody."""
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    wanted = search.strip().lower()
    if not MIN_SEARCH <= len(wanted) <= MAX_SEARCH:
        raise BadRequest(f"Give {MIN_SEARCH} to {MAX_SEARCH} characters of the name.")
    rows = await tx.fetch(
        "select 'group' as kind, g.id, g.name, '' as display_name, exists (select from project_groups pg"
        " where pg.project_id = $1 and pg.group_id = g.id) as member from groups g where strpos(lower(g.name), $2) > 0"
        " union all select 'user', u.id, u.username, u.display_name, exists (select from project_members m"
        " where m.project_id = $1 and m.user_id = u.id) from users u where u.state = 'active'"
        " and (strpos(lower(u.username), $2) > 0 or strpos(lower(u.display_name), $2) > 0)"
        f" order by kind desc, name limit {MAX_CANDIDATES}",
        project_id, wanted,
    )  # fmt: skip
    return [Candidate(**dict(row)) for row in rows]


async def add_founder(tx: WriteTx, project_id: UUID, user_id: UUID) -> None:
    """The first member of a project that was made just now."""
    await tx.execute(
        "insert into project_members (project_id, user_id, role, permissions, ruled) values ($1, $2, 'project_admin', $3, false)",
        project_id, user_id, sorted(ROLES["project_admin"]),
    )  # fmt: skip


async def add_service_member(tx: WriteTx, project_id: UUID, user_id: UUID, role: str) -> None:
    """A service principal, by an administrator at the command line. Who is a member already stays what they are."""
    await lock_policy(tx, project_id)
    added = await tx.fetchval(
        "insert into project_members (project_id, user_id, role, permissions, ruled)"
        " select id, $2, $3, $4, ruled from projects where id = $1 on conflict do nothing returning user_id",
        project_id, user_id, role, await permissions_of(tx, project_id, role),
    )  # fmt: skip
    if added is None:
        return
    await settle_project(tx, project_id)
    await emit(
        tx,
        Event(
            type="member.set", object_kind="user", object_id=str(user_id), project_id=project_id, data={"role": role}
        ),
    )


async def require_administrator(tx: ReadTx, project_id: UUID) -> None:
    """Call after a change. Raises LastAdministrator when nobody is left who may manage the project."""
    if not await tx.fetchval(
        f"select exists (select from project_members m where m.project_id = $1 and 'project.manage' = any (m.permissions)"
        f" and {VALID})",
        project_id,
    ):
        raise LastAdministrator("Nobody would be left who may manage this project.")


def require_order(valid_from: datetime | None, expires_at: datetime | None) -> None:
    for moment in (valid_from, expires_at):
        if moment is not None and moment.tzinfo is None:
            raise BadRequest("A time carries its offset from UTC.")
    if valid_from is not None and expires_at is not None and valid_from >= expires_at:
        raise BadRequest("It would end before it begins.")


# -- groups -----------------------------------------------------------------------------------------------------------


async def create_group(tx: WriteTx, name: str) -> Group:
    await require_global(tx, tx.actor, Permission.USER_MANAGE)
    if not name.strip() or len(name) > 200:
        raise BadRequest("A group's name has 1 to 200 characters.")
    group_id = await tx.fetchval(
        "insert into groups (id, name) values ($1, $2) on conflict (name) do nothing returning id",
        new_id(),
        name.strip(),
    )
    if group_id is None:
        raise Conflict("There is a group of this name already.")
    await emit(tx, Event(type="group.created", object_kind="group", object_id=str(group_id)))
    return Group(id=group_id, name=name.strip(), user_ids=[])


async def list_groups(tx: ReadTx) -> list[Group]:
    await require_global(tx, tx.actor, Permission.USER_MANAGE)
    rows = await tx.fetch(
        "select g.id, g.name, array(select user_id from group_members where group_id = g.id order by user_id) as user_ids"
        " from groups g order by g.name limit 1000"
    )
    return [Group(**dict(row)) for row in rows]


async def add_to_group(tx: WriteTx, group_id: UUID, user_id: UUID) -> None:
    await require_global(tx, tx.actor, Permission.USER_MANAGE)
    if await tx.fetchval("select 1 from groups where id = $1 for update", group_id) is None:
        raise NotFound("There is no such group.")
    if await tx.fetchval("select 1 from users where id = $1 and state <> 'deleted'", user_id) is None:
        raise NotFound("There is no such user.")
    if await tx.fetchval("select count(*) from group_members where group_id = $1", group_id) >= MAX_GROUP_MEMBERS:
        raise BadRequest(f"A group has {MAX_GROUP_MEMBERS} members at most.")
    await tx.execute(
        "insert into group_members (group_id, user_id) values ($1, $2) on conflict do nothing", group_id, user_id
    )
    await _settle_projects_of(tx, group_id)
    event = Event(type="group.joined", object_kind="user", object_id=str(user_id), data={"group_id": str(group_id)})
    await emit(tx, event)


async def remove_from_group(tx: WriteTx, group_id: UUID, user_id: UUID) -> None:
    await require_global(tx, tx.actor, Permission.USER_MANAGE)
    await tx.fetchval("select 1 from groups where id = $1 for update", group_id)
    done = await tx.fetchval(
        "delete from group_members where group_id = $1 and user_id = $2 returning user_id", group_id, user_id
    )
    if done is None:
        raise NotFound("There is no such member of this group.")
    await _settle_projects_of(tx, group_id)
    event = Event(type="group.left", object_kind="user", object_id=str(user_id), data={"group_id": str(group_id)})
    await emit(tx, event)


async def set_project_group(
    tx: WriteTx,
    project_id: UUID,
    *,
    group_id: UUID,
    role: str,
    valid_from: datetime | None,
    expires_at: datetime | None,
) -> ProjectGroup:
    """Gives a group a role in the project."""
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    require_order(valid_from, expires_at)
    name = await tx.fetchval("select name from groups where id = $1", group_id)
    if name is None:
        raise NotFound("There is no such group.")
    await lock_policy(tx, project_id)
    await require_holding(tx, tx.actor, await permissions_of(tx, project_id, role), project_id)
    await tx.execute(
        "insert into project_groups (project_id, group_id, role, valid_from, expires_at) values ($1, $2, $3, $4, $5)"
        " on conflict (project_id, group_id) do update set role = excluded.role, valid_from = excluded.valid_from,"
        " expires_at = excluded.expires_at",
        project_id, group_id, role, valid_from, expires_at,
    )  # fmt: skip
    await settle_groups(tx, project_id)
    await require_administrator(tx, project_id)
    event = Event(
        type="project_group.set",
        object_kind="group",
        object_id=str(group_id),
        project_id=project_id,
        data={"role": role},
    )
    await emit(tx, event)
    return ProjectGroup(group_id=group_id, name=name, role=role, valid_from=valid_from, expires_at=expires_at)


async def remove_project_group(tx: WriteTx, project_id: UUID, group_id: UUID) -> None:
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    await lock_policy(tx, project_id)
    done = await tx.fetchval(
        "delete from project_groups where project_id = $1 and group_id = $2 returning group_id", project_id, group_id
    )
    if done is None:
        raise NotFound("There is no such group in this project.")
    await settle_groups(tx, project_id)
    await require_administrator(tx, project_id)
    event = Event(type="project_group.removed", object_kind="group", object_id=str(group_id), project_id=project_id)
    await emit(tx, event)


async def list_project_groups(tx: ReadTx, project_id: UUID) -> list[ProjectGroup]:
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    rows = await tx.fetch(
        "select pg.group_id, g.name, pg.role, pg.valid_from, pg.expires_at from project_groups pg"
        " join groups g on g.id = pg.group_id where pg.project_id = $1 order by g.name",
        project_id,
    )
    return [ProjectGroup(**dict(row)) for row in rows]


async def _settle_projects_of(tx: WriteTx, group_id: UUID) -> None:
    for row in await tx.fetch(
        "select project_id from project_groups where group_id = $1 order by project_id", group_id
    ):
        await lock_policy(tx, row["project_id"])
        await settle_groups(tx, row["project_id"])


async def settle_groups(tx: WriteTx, project_id: UUID) -> None:
    """Brings the memberships that groups give in step with the groups."""
    await tx.execute(
        "delete from project_members m where m.project_id = $1 and m.via_group is not null and not exists (select from"
        " project_groups pg join group_members gm using (group_id) where pg.project_id = $1 and gm.user_id = m.user_id)",
        project_id,
    )
    await tx.execute(_GROUP_MEMBERSHIPS, project_id)
    await bring_permissions_in_step(tx, project_id)
    await settle_project(tx, project_id)


_GROUP_MEMBERSHIPS = """
insert into project_members (project_id, user_id, role, permissions, ruled, via_group, valid_from, expires_at)
select distinct on (gm.user_id) pg.project_id, gm.user_id, pg.role, '{}'::text[], p.ruled, pg.group_id, pg.valid_from, pg.expires_at
from project_groups pg join group_members gm using (group_id) join projects p on p.id = pg.project_id
where pg.project_id = $1
order by gm.user_id, pg.granted_at, pg.group_id
on conflict (user_id, project_id) do update set role = excluded.role, permissions = excluded.permissions,
  via_group = excluded.via_group, valid_from = excluded.valid_from, expires_at = excluded.expires_at, audience_id = 0
where project_members.via_group is not null"""


# -- roles ------------------------------------------------------------------------------------------------------------


async def permissions_of(tx: ReadTx, project_id: UUID, role: str) -> list[str]:
    """Raises BadRequest when neither Annotomy nor the project knows the role."""
    entry = ROLE_ENTRIES.get(role)
    if entry is not None and entry.scope == "project":
        return sorted(entry.permissions)
    own: list[str] | None = await tx.fetchval(
        "select permissions from project_roles where project_id = $1 and name = $2", project_id, role
    )
    if own is None:
        names = ", ".join(name for name, entry in ROLE_ENTRIES.items() if entry.scope == "project")
        raise BadRequest(f"There is no role of this name. Roles of every project: {names}.")
    return own


async def list_roles(tx: ReadTx, project_id: UUID | None) -> list[Role]:
    """The roles that every project has, and those of one project when it is named."""
    found = [
        Role(
            name=name,
            label=RoleLabel(en=entry.en, ko=entry.ko),
            permissions=entry.permissions,
            scope="global" if entry.scope == "global" else "project",
        )
        for name, entry in ROLE_ENTRIES.items()
    ]
    if project_id is not None:
        await require_member(tx, tx.actor, project_id)
        rows = await tx.fetch(
            "select name, label_en, label_ko, permissions from project_roles where project_id = $1 order by name",
            project_id,
        )
        found += [_role(row, project_id) for row in rows]
    return found


def _role(row: Any, project_id: UUID) -> Role:
    label = RoleLabel(en=row["label_en"], ko=row["label_ko"])
    return Role(row["name"], label, row["permissions"], "project", project_id)


async def set_role(
    tx: WriteTx, project_id: UUID, *, name: str, permissions: list[str], label: RoleLabel | None
) -> Role:
    """Makes a role of the project's own, or changes it for everybody who has it."""
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    if not _NAME.match(name) or name in ROLES:
        raise BadRequest("A role's name has small letters, digits and _, and is none of those that every project has.")
    unknown = sorted({one for one in permissions if one not in PERMISSIONS or PERMISSIONS[one].scope != "project"})
    if unknown:
        raise BadRequest("A role is made of the permissions that GET /roles lists for projects.", unknown=unknown[:20])
    await lock_policy(tx, project_id)
    before: list[str] | None = await tx.fetchval(
        "select permissions from project_roles where project_id = $1 and name = $2", project_id, name
    )
    await require_holding(tx, tx.actor, set(permissions) - set(before or ()), project_id)
    if await tx.fetchval("select count(*) from project_roles where project_id = $1", project_id) >= MAX_ROLES:
        raise BadRequest(f"A project has {MAX_ROLES} roles of its own at most.")
    shown = label or RoleLabel(en=name, ko=name)
    row = await tx.fetchrow(
        "insert into project_roles (project_id, name, label_en, label_ko, permissions) values ($1, $2, $3, $4, $5)"
        " on conflict (project_id, name) do update set label_en = excluded.label_en, label_ko = excluded.label_ko,"
        " permissions = excluded.permissions returning name, label_en, label_ko, permissions",
        project_id, name, shown.en[:200], shown.ko[:200], sorted(set(permissions)),
    )  # fmt: skip
    await bring_permissions_in_step(tx, project_id)
    await require_administrator(tx, project_id)
    await settle_project(tx, project_id, rules_changed=True)
    data = {"permissions": sorted(set(permissions))}
    await emit(tx, Event(type="role.set", object_kind="role", object_id=name, project_id=project_id, data=data))
    return _role(row, project_id)


async def delete_role(tx: WriteTx, project_id: UUID, name: str) -> None:
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    await lock_policy(tx, project_id)
    for table in ("project_members", "project_groups", "project_rules"):
        if await tx.fetchval(
            f"select exists (select from {table} where project_id = $1 and role = $2)", project_id, name
        ):
            raise RoleInUse("Members, groups or rules name this role.")
    done = await tx.fetchval(
        "delete from project_roles where project_id = $1 and name = $2 returning name", project_id, name
    )
    if done is None:
        raise NotFound("There is no such role of this project's own.")
    await emit(tx, Event(type="role.deleted", object_kind="role", object_id=name, project_id=project_id))


async def bring_permissions_in_step(tx: WriteTx, project_id: UUID) -> None:
    for row in await tx.fetch("select distinct role from project_members where project_id = $1", project_id):
        permissions = await permissions_of(tx, project_id, row["role"])
        await tx.execute(
            "update project_members set permissions = $3 where project_id = $1 and role = $2 and permissions <> $3",
            project_id, row["role"], permissions,
        )  # fmt: skip


async def bring_roles_in_step(db: Database) -> None:
    """At the start of a release: memberships take the permissions that its roles.toml gives."""
    async with db.write(SYSTEM) as tx:
        for name, entry in ROLE_ENTRIES.items():
            await tx.execute(
                "update project_members m set permissions = $2 where m.role = $1 and m.permissions <> $2 and not exists"
                " (select from project_roles r where r.project_id = m.project_id and r.name = m.role)",
                name, sorted(entry.permissions),
            )  # fmt: skip
