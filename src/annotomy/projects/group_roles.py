"""Membership that a sign-in service's groups decide (ANNOTOMY_OIDC_ROLES); applied at each sign-in."""

from collections.abc import Mapping
from uuid import UUID

from annotomy.db.engine import WriteTx
from annotomy.events import Event, emit


async def set_group_roles(tx: WriteTx, user_id: UUID, wanted: Mapping[UUID, str], decided: frozenset[UUID]) -> None:
    """In the projects `decided`, the user has the role of `wanted`, or is no member. Projects that do not exist are
    passed over: the setting may outlive them."""
    for project_id in sorted(decided):
        role = wanted.get(project_id)
        if role is None:
            changed = await tx.fetchval(
                "delete from project_members where project_id = $1 and user_id = $2 returning 'removed'",
                project_id, user_id,
            )  # fmt: skip
        else:
            changed = await tx.fetchval(
                "insert into project_members as m (project_id, user_id, role) select id, $2, $3 from projects where id = $1"
                " on conflict (user_id, project_id) do update set role = excluded.role, expires_at = null"
                " where (m.role, m.expires_at) is distinct from (excluded.role, null::timestamptz) returning 'set'",
                project_id, user_id, role,
            )  # fmt: skip
        if changed:
            data = {"by": "oidc", **({"role": role} if role else {})}
            event = Event(
                type=f"member.{changed}", object_kind="user", object_id=str(user_id), project_id=project_id, data=data
            )
            await emit(tx, event)
