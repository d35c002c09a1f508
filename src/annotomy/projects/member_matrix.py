"""Users x projects: the roles of people in the projects that the asker manages, read and written by the page."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from annotomy.db.engine import ReadTx, WriteTx
from annotomy.errors import BadRequest, Conflict, Forbidden, NotFound, Problem
from annotomy.events import Event, emit
from annotomy.projects.access import (
    VALID,
    Permission,
    held_in,
    require_all_held,
    require_global,
    require_scope,
)
from annotomy.projects.errors import LastAdministrator
from annotomy.projects.matrix_axis import CHANGED, UNCHANGED, Asked, page, position, refused, require_none_refused
from annotomy.projects.matrix_schemas import (
    CellResult,
    MatrixResult,
    MemberMatrix,
    MemberMatrixChange,
    MembershipCell,
    MembershipChange,
    PersonRow,
    ProjectColumn,
)
from annotomy.projects.members import PUT_MEMBER, require_administrator, require_order, settle_groups
from annotomy.projects.roles import ROLE_ENTRIES
from annotomy.projects.visibility import lock_policy, settle_project

_MANAGED = (
    "with managed as (select p.id, p.name from projects p join project_members m on m.project_id = p.id"
    f" where m.user_id = $1 and 'project.manage' = any (m.permissions) and {VALID} and ($2::uuid[] is null or p.id = any ($2)))"
)
_PEOPLE = (
    f"{_MANAGED} select %s from users u where (exists (select from project_members pm where pm.user_id = u.id and pm.project_id in"
    " (select id from managed)) or $3 and u.state <> 'deleted' and not u.is_service)"
    " and strpos(lower(u.username || ' ' || u.display_name), lower($4)) > 0"
)


async def read(tx: ReadTx, *, q: str, rows: Asked, columns: Asked) -> MemberMatrix:
    require_scope(tx.actor, Permission.PROJECT_MANAGE)
    actor = (tx.actor.user_id, tx.actor.project_ids)
    people = (*actor, await _knows_everybody(tx), q)
    found_people = await tx.fetch(
        _PEOPLE % "u.id, u.username, u.display_name, lower(u.username) as key"
        + " and ($5::text is null or lower(u.username) > $5) order by lower(u.username) limit $6 + 1",
        *people, *(position(rows, (str,)) or (None,)), rows[0],
    )  # fmt: skip
    found_projects = await tx.fetch(
        f"{_MANAGED} select id, name from managed where ($3::text is null or (name, id) > ($3, $4::uuid)) order by name, id limit $5 + 1",
        *actor, *(position(columns, (str, UUID)) or (None, None)), columns[0],
    )  # fmt: skip
    shown_rows = page(
        [(PersonRow(row["id"], row["username"], row["display_name"]), (row["key"],)) for row in found_people],
        rows, await tx.fetchval(_PEOPLE % "count(*)", *people),
    )  # fmt: skip
    shown_columns = page(
        [(ProjectColumn(row["id"], row["name"]), (row["name"], row["id"])) for row in found_projects],
        columns, await tx.fetchval(f"{_MANAGED} select count(*) from managed", *actor),
    )  # fmt: skip
    memberships = await tx.fetch(
        "select m.user_id, m.project_id, m.role, m.via_group, m.valid_from, m.expires_at,"
        f" {VALID} as valid from project_members m where m.user_id = any($1) and m.project_id = any($2)",
        [one.user_id for one in shown_rows.items], [one.id for one in shown_columns.items],
    )  # fmt: skip
    cells = {(row["user_id"], row["project_id"]): _cell(row) for row in memberships}
    return MemberMatrix(
        shown_rows,
        shown_columns,
        [[cells.get((row.user_id, column.id)) for column in shown_columns.items] for row in shown_rows.items],
    )


async def _knows_everybody(tx: ReadTx) -> bool:
    """Who manages accounts may list them all anyway."""
    try:
        await require_global(tx, tx.actor, Permission.USER_MANAGE)
    except Forbidden:
        return False
    return True


def _cell(row: Any) -> MembershipCell:
    source = "member" if row["via_group"] is None else "group"
    return MembershipCell(
        row["role"], source, row["via_group"], row["valid_from"], row["expires_at"], bool(row["valid"])
    )


# -- writing ----------------------------------------------------------------------------------------------------------


async def write(tx: WriteTx, asked: MemberMatrixChange) -> MatrixResult:
    """Raises MatrixRefused when a cell did not pass: a project that the asker does not manage, a role that holds more than their
    own, the last administrator."""
    require_scope(tx.actor, Permission.PROJECT_MANAGE)
    projects = sorted({one.project_id for one in asked.changes})
    held = await held_in(tx, tx.actor, projects)
    for project_id in projects:
        if Permission.PROJECT_MANAGE.value in held.get(project_id, ()):
            await lock_policy(tx, project_id)
    held = await held_in(tx, tx.actor, projects)  # as it stands behind the locks
    known = {
        row["id"]
        for row in await tx.fetch(
            "select id from users where id = any($1) and state <> 'deleted'", [one.user_id for one in asked.changes]
        )
    }
    before = await _memberships(tx, asked.changes)
    roles = await _roles(tx, projects)
    results: list[CellResult] = []
    seen: set[tuple[UUID, UUID]] = set()
    for change in asked.changes:
        key = (change.user_id, change.project_id)
        try:
            if key in seen:
                raise BadRequest("The cell is named twice.")
            results.append(_judge(change, before.get(key), held, known, roles))
        except Problem as problem:
            results.append(refused(problem))
        seen.add(key)
    require_none_refused(results)
    changes = [one for one, result in zip(asked.changes, results, strict=True) if result is CHANGED]
    for project_id in sorted({one.project_id for one in changes}):
        mine = [one for one in changes if one.project_id == project_id]
        await _write_project(tx, project_id, mine, roles)
        try:
            await require_administrator(tx, project_id)
        except LastAdministrator as problem:
            require_none_refused(
                [
                    refused(problem) if change in mine else result
                    for change, result in zip(asked.changes, results, strict=True)
                ]
            )
    for change in changes:
        await emit(tx, _event(change, before.get((change.user_id, change.project_id)), asked.reason))
    return MatrixResult(results)


def _judge(
    change: MembershipChange,
    before: Any | None,
    held: dict[UUID, frozenset[str]],
    known: set[UUID],
    roles: dict[tuple[UUID, str], list[str]],
) -> CellResult:
    mine = held.get(change.project_id)
    if mine is None:
        raise NotFound("There is no such project.")
    if Permission.PROJECT_MANAGE.value not in mine:
        raise Forbidden(
            f"Your role lacks the permission {Permission.PROJECT_MANAGE.value}.",
            permission=Permission.PROJECT_MANAGE.value,
        )
    if change.role is None:
        if before is None:
            return UNCHANGED
        if before["via_group"] is not None:
            raise Conflict("The person is a member through a group. Take them out of the group.")
        return CHANGED
    require_order(change.valid_from, change.expires_at)
    if change.user_id not in known:
        raise NotFound("There is no such user.")
    permissions = roles.get((change.project_id, change.role))
    if permissions is None:
        raise BadRequest("The project has no role of this name.")
    wanted = (change.role, change.valid_from, change.expires_at, None)
    if before is not None and wanted == tuple(
        before[name] for name in ("role", "valid_from", "expires_at", "via_group")
    ):
        return UNCHANGED
    require_all_held(mine, permissions)
    return CHANGED


async def _memberships(tx: ReadTx, changes: Sequence[MembershipChange]) -> dict[tuple[UUID, UUID], Any]:
    rows = await tx.fetch(
        "select m.user_id, m.project_id, m.role, m.valid_from, m.expires_at, m.via_group from project_members m"
        " join unnest($1::uuid[], $2::uuid[]) asked (user_id, project_id) using (user_id, project_id)",
        [one.user_id for one in changes], [one.project_id for one in changes],
    )  # fmt: skip
    return {(row["user_id"], row["project_id"]): row for row in rows}


async def _roles(tx: ReadTx, projects: list[UUID]) -> dict[tuple[UUID, str], list[str]]:
    roles = {
        (project_id, name): sorted(entry.permissions)
        for project_id in projects
        for name, entry in ROLE_ENTRIES.items()
        if entry.scope == "project"
    }
    rows = await tx.fetch(
        "select project_id, name, permissions from project_roles where project_id = any($1)", projects
    )
    return roles | {(row["project_id"], row["name"]): row["permissions"] for row in rows}


async def _write_project(
    tx: WriteTx, project_id: UUID, changes: list[MembershipChange], roles: dict[tuple[UUID, str], list[str]]
) -> None:
    taken = [one.user_id for one in changes if one.role is None]
    await tx.executemany(
        PUT_MEMBER,
        [
            (project_id, one.user_id, one.role, roles[project_id, one.role], one.valid_from, one.expires_at)
            for one in changes
            if one.role is not None
        ],
    )
    if taken:
        await tx.execute(
            "delete from project_members where project_id = $1 and user_id = any($2) and via_group is null",
            project_id, taken,
        )  # fmt: skip
        await settle_groups(tx, project_id)
    else:
        await settle_project(tx, project_id)


def _event(change: MembershipChange, before: Any | None, reason: str) -> Event:
    data = {"role": change.role, "valid_from": change.valid_from, "expires_at": change.expires_at}
    data |= {"before": before["role"] if before is not None else None}
    return Event(
        type="member.removed" if change.role is None else "member.set",
        object_kind="user",
        object_id=str(change.user_id),
        project_id=change.project_id,
        data={name: str(value) for name, value in data.items() if value is not None},
        reason=reason,
    )
