"""Roles x permissions of one project: the roles of its own are written here, those of every project only read."""

from uuid import UUID

from annotomy.audit import Entry, record_all
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.errors import BadRequest, Problem
from annotomy.events import Event, emit
from annotomy.projects.access import Permission, held_in, require, require_all_held
from annotomy.projects.errors import LastAdministrator
from annotomy.projects.matrix_axis import CHANGED, UNCHANGED, Asked, page, position, refused, require_none_refused
from annotomy.projects.matrix_schemas import (
    CellResult,
    MatrixResult,
    PermissionChange,
    RoleMatrix,
    RoleMatrixChange,
    RoleRow,
)
from annotomy.projects.members import bring_permissions_in_step, require_administrator
from annotomy.projects.roles import PERMISSIONS, ROLE_ENTRIES, ROLES
from annotomy.projects.schemas import PermissionLabel, RoleLabel
from annotomy.projects.visibility import lock_policy, settle_project

_COLUMNS = [
    (PermissionLabel(name, RoleLabel(en=label.en, ko=label.ko), label.scope), (index,))
    for index, (name, label) in enumerate(PERMISSIONS.items())
    if label.scope == "project"
]


async def read(tx: ReadTx, project_id: UUID, *, rows: Asked, columns: Asked) -> RoleMatrix:
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    own = await tx.fetch(
        "select name, label_en, label_ko, permissions from project_roles where project_id = $1 order by name",
        project_id,
    )
    counts = await tx.fetch(
        "select role, count(*) from project_members where project_id = $1 group by role", project_id
    )
    members = {row["role"]: row["count"] for row in counts}
    held: dict[str, frozenset[str]] = dict(ROLES)
    found: list[tuple[RoleRow, tuple[object, ...]]] = []
    for row in own:
        held[row["name"]] = frozenset(row["permissions"])
        label = RoleLabel(en=row["label_en"], ko=row["label_ko"])
        found.append((RoleRow(row["name"], label, True, members.get(row["name"], 0)), (0, row["name"])))
    for index, (name, entry) in enumerate(ROLE_ENTRIES.items()):
        if entry.scope == "project":
            label = RoleLabel(en=entry.en, ko=entry.ko)
            found.append((RoleRow(name, label, False, members.get(name, 0)), (1, f"{index:03}")))
    after_row, after_column = position(rows, (int, str)), position(columns, (int,))
    shown_rows = page([one for one in found if after_row is None or one[1] > after_row], rows, len(found))
    shown_columns = page(
        [one for one in _COLUMNS if after_column is None or one[1] > after_column], columns, len(_COLUMNS)
    )
    cells = [[column.name in held[row.name] for column in shown_columns.items] for row in shown_rows.items]
    return RoleMatrix(shown_rows, shown_columns, cells)


async def write(tx: WriteTx, project_id: UUID, asked: RoleMatrixChange) -> MatrixResult:
    """Raises MatrixRefused when a cell did not pass. A role changes for everybody who has it, from the commit on."""
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
    await lock_policy(tx, project_id)
    held = (await held_in(tx, tx.actor, [project_id]))[project_id]
    found = await tx.fetch("select name, permissions from project_roles where project_id = $1", project_id)
    before = {row["name"]: frozenset(row["permissions"]) for row in found}
    after = {name: set(permissions) for name, permissions in before.items()}
    results: list[CellResult] = []
    for change in asked.changes:
        try:
            results.append(_apply(after, change, held))
        except Problem as problem:
            results.append(refused(problem))
    require_none_refused(results)
    changed = {name: sorted(now) for name, now in after.items() if now.symmetric_difference(before[name])}
    if not changed:
        return MatrixResult(results)
    await tx.executemany(
        "update project_roles set permissions = $3 where project_id = $1 and name = $2",
        [(project_id, name, permissions) for name, permissions in changed.items()],
    )
    await bring_permissions_in_step(tx, project_id)
    try:
        await require_administrator(tx, project_id)
    except LastAdministrator as problem:
        manage = Permission.PROJECT_MANAGE.value
        require_none_refused(
            [
                refused(problem) if change.permission == manage and not change.granted else result
                for change, result in zip(asked.changes, results, strict=True)
            ]
        )
        raise
    await settle_project(tx, project_id, rules_changed=True)
    for name, permissions in changed.items():
        data = {"permissions": permissions}
        await emit(
            tx,
            Event(
                type="role.set",
                object_kind="role",
                object_id=name,
                project_id=project_id,
                data=data,
                reason=asked.reason,
            ),
        )
    await record_all(tx, [_recorded(project_id, one, asked.reason) for one, result in zip(asked.changes, results, strict=True) if result is CHANGED])  # fmt: skip
    return MatrixResult(results)


def _apply(roles: dict[str, set[str]], change: PermissionChange, held: frozenset[str]) -> CellResult:
    if change.permission not in PERMISSIONS or PERMISSIONS[change.permission].scope != "project":
        raise BadRequest("A role is made of the permissions that GET /roles lists for projects.")
    if change.role in ROLES:
        raise BadRequest("The roles of every project cannot be changed; make one of the project's own.")
    if change.role not in roles:
        raise BadRequest("The project has no role of its own of this name.")
    permissions = roles[change.role]
    if (change.permission in permissions) == change.granted:
        return UNCHANGED
    if change.granted:
        require_all_held(held, [change.permission])
        permissions.add(change.permission)
    else:
        permissions.discard(change.permission)
    return CHANGED


def _recorded(project_id: UUID, change: PermissionChange, reason: str) -> Entry:
    return Entry(
        action="role.permission_granted" if change.granted else "role.permission_withdrawn",
        object_kind="role",
        object_id=change.role,
        project_id=project_id,
        reason=reason,
        detail={"permission": change.permission},
    )
