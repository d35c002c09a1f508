"""Roles of the installation, outside of any project: given and taken by its administrators.

An administrator is an account with `users.is_admin`, which identity keeps and protects; any other role is a row of
`global_roles`, read by each check (`access.require_global`). Both hold at once.
"""

from uuid import UUID

from annotomy.db.engine import ReadTx, WriteTx
from annotomy.errors import BadRequest, NotFound
from annotomy.events import Event, emit
from annotomy.identity.users import require_other_administrator, set_administrator
from annotomy.projects.access import Permission, require_global
from annotomy.projects.roles import ROLE_ENTRIES
from annotomy.projects.schemas import GlobalRole

ADMINISTRATOR = "system_administrator"
_ALL = (
    f"select u.id as user_id, u.username, '{ADMINISTRATOR}' as role from users u where u.is_admin and u.state <> 'deleted'"
    " union select u.id, u.username, g.role from global_roles g join users u on u.id = g.user_id where u.state <> 'deleted'"
)


async def list_all(tx: ReadTx) -> list[GlobalRole]:
    await require_global(tx, tx.actor, Permission.SYSTEM_MANAGE)
    rows = await tx.fetch(f"select * from ({_ALL}) held order by role, username limit 1000")
    return [GlobalRole(**dict(row)) for row in rows]


async def grant(tx: WriteTx, user_id: UUID, role: str, *, reason: str) -> GlobalRole:
    """Giving what somebody has already changes nothing."""
    await require_global(tx, tx.actor, Permission.SYSTEM_MANAGE)
    _require_global_role(role)
    username = await tx.fetchval(
        "select username from users where id = $1 and state <> 'deleted' and not is_service for no key update", user_id
    )
    if username is None:
        raise NotFound("There is no such user.")
    if role == ADMINISTRATOR:
        changed = await set_administrator(tx, user_id, is_admin=True)
    else:
        changed = await tx.fetchval(
            "insert into global_roles (user_id, role) values ($1, $2) on conflict do nothing returning true",
            user_id, role,
        )  # fmt: skip
    if changed:
        await _emit(tx, "global_role.granted", user_id, role, reason)
    return GlobalRole(user_id, username, role)


async def withdraw(tx: WriteTx, user_id: UUID, role: str, *, reason: str) -> None:
    """Raises NotFound for who does not hold it, Conflict for the last administrator."""
    await require_global(tx, tx.actor, Permission.SYSTEM_MANAGE)
    _require_global_role(role)
    taken = await tx.fetchval("delete from global_roles where user_id = $1 and role = $2 returning true", user_id, role)
    if role == ADMINISTRATOR:
        await require_other_administrator(tx, without=user_id)
        taken = await set_administrator(tx, user_id, is_admin=False) or taken
    if not taken:
        raise NotFound("This user does not have this role.")
    await _emit(tx, "global_role.withdrawn", user_id, role, reason)


def _require_global_role(role: str) -> None:
    if role not in ROLE_ENTRIES or ROLE_ENTRIES[role].scope != "global":
        names = ", ".join(name for name, entry in ROLE_ENTRIES.items() if entry.scope == "global")
        raise BadRequest(f"Roles of the installation: {names}.")


async def _emit(tx: WriteTx, what: str, user_id: UUID, role: str, reason: str) -> None:
    event = Event(type=what, object_kind="user", object_id=str(user_id), data={"role": role}, reason=reason)
    await emit(tx, event)
