"""Membership that a sign-in service's groups decide (ANNOTOMY_OIDC_ROLES); applied at each sign-in."""

from collections.abc import Mapping
from uuid import UUID

import structlog

from annotomy.db.engine import WriteTx
from annotomy.errors import BadRequest
from annotomy.events import Event, emit
from annotomy.projects.members import put_member, take_member

log = structlog.get_logger(__name__)


async def set_group_roles(tx: WriteTx, user_id: UUID, wanted: Mapping[UUID, str], decided: frozenset[UUID]) -> None:
    """In the projects `decided`, the user has the role of `wanted`, or no membership of their own. A project or a role that
    does not exist is passed over and logged: a setting that is wrong locks nobody out."""
    for project_id in sorted(decided):
        row = await tx.fetchrow(
            "select p.id, m.role from projects p left join project_members m on m.project_id = p.id and m.user_id = $2"
            " and m.via_group is null and m.valid_from is null and m.expires_at is null where p.id = $1",
            project_id, user_id,
        )  # fmt: skip
        role = wanted.get(project_id)
        if row is None:
            log.warning("oidc.project_unknown", project_id=str(project_id))
        elif role is None:
            if await take_member(tx, project_id, user_id):
                await _tell(tx, "member.removed", project_id, user_id, {"by": "oidc"})
        elif role != row["role"]:
            try:
                await put_member(tx, project_id, user_id=user_id, role=role, valid_from=None, expires_at=None)
            except BadRequest:
                log.warning("oidc.role_unknown", project_id=str(project_id), role=role)
            else:
                await _tell(tx, "member.set", project_id, user_id, {"by": "oidc", "role": role})


async def _tell(tx: WriteTx, what: str, project_id: UUID, user_id: UUID, data: dict[str, str]) -> None:
    await emit(tx, Event(type=what, object_kind="user", object_id=str(user_id), project_id=project_id, data=data))
