"""Access requests: asked by anybody, answered by who manages the project, ended by time.

Asking tells nothing: a request for a project that does not exist looks the same and waits for ever.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, NotFound
from annotomy.events import Event, emit
from annotomy.projects.access import VALID, Permission, require
from annotomy.projects.errors import RequestDecided
from annotomy.projects.members import set_member
from annotomy.projects.schemas import AccessRequest, NewAccessRequest

LIFETIME = timedelta(days=30)
"""A request that nobody answers lapses, so that an old one cannot be approved by surprise."""
MAX_OPEN = 50
"""Pending requests of one person: asking is free for everybody who can sign in."""
MAX_REASON = 2000
SCOPE_ROLES = {"full": "annotator", "limited": "blinded_reader", "read_only": "viewer"}
"""The role that an approval gives when it names no other."""

_STATE = "case when a.state = 'pending' and a.expires_at <= now() then 'expired' else a.state end"
_SELECT = (
    f"select a.id, a.project_id, a.user_id, u.username, a.scope, a.reason, {_STATE} as state, a.until, a.created_at,"
    " a.decided_at, a.note from access_requests a join users u on u.id = a.user_id"
)
_MANAGED = (
    "(select m.project_id from project_members m where m.user_id = $1 and 'project.manage' = any (m.permissions)"
    f" and {VALID} and ($2::uuid[] is null or m.project_id = any ($2)))"
)


async def ask(tx: WriteTx, asked: NewAccessRequest, *, now: datetime) -> AccessRequest:
    if not asked.reason.strip() or len(asked.reason) > MAX_REASON:
        raise BadRequest(f"Give a reason of at most {MAX_REASON} characters.")
    if asked.until is not None and (asked.until.tzinfo is None or asked.until <= now):
        raise BadRequest("until is a time to come, with its offset from UTC.")
    open_ones = await tx.fetchval(
        "select count(*) from access_requests where user_id = $1 and state = 'pending' and expires_at > now()",
        tx.actor.user_id,
    )
    if open_ones >= MAX_OPEN:
        raise BadRequest(f"You have {MAX_OPEN} open requests; wait for an answer or withdraw some.")
    request_id = new_id()
    await tx.execute(
        "insert into access_requests (id, project_id, user_id, scope, reason, until, expires_at)"
        " values ($1, $2, $3, $4, $5, $6, $7)",
        request_id, asked.project_id, tx.actor.user_id, asked.scope, asked.reason.strip(), asked.until, now + LIFETIME,
    )  # fmt: skip
    await _emit(tx, "access_request.made", request_id, asked.project_id)
    return await _request(tx, request_id)


async def list_requests(tx: ReadTx) -> list[AccessRequest]:
    """One's own, and those for the projects that one manages; newest first."""
    rows = await tx.fetch(
        f"{_SELECT} where a.user_id = $1 or a.project_id in {_MANAGED} order by a.id desc limit 1000",
        tx.actor.user_id, tx.actor.project_ids,
    )  # fmt: skip
    return [AccessRequest(**dict(row)) for row in rows]


async def approve(
    tx: WriteTx, request_id: UUID, *, role: str | None, expires_at: datetime | None, note: str
) -> AccessRequest:
    """The asker becomes a member, in the same transaction."""
    found = await _open_request(tx, request_id)
    await set_member(
        tx,
        found["project_id"],
        user_id=found["user_id"],
        role=role or SCOPE_ROLES[found["scope"]],
        expires_at=expires_at or found["until"],
    )
    return await _decide(tx, found, "approved", note)


async def deny(tx: WriteTx, request_id: UUID, *, note: str) -> AccessRequest:
    return await _decide(tx, await _open_request(tx, request_id), "denied", note)


async def withdraw(tx: WriteTx, request_id: UUID) -> None:
    done = await tx.fetchval(
        "update access_requests set state = 'withdrawn' where id = $1 and user_id = $2 and state = 'pending' returning project_id",
        request_id, tx.actor.user_id,
    )  # fmt: skip
    if done is None:
        raise NotFound("There is no such open request of yours.")
    await _emit(tx, "access_request.withdrawn", request_id, done)


async def _open_request(tx: WriteTx, request_id: UUID) -> Any:
    found = await tx.fetchrow(
        f"select a.id, a.project_id, a.user_id, a.scope, a.until, {_STATE} as state from access_requests a"
        f" where a.id = $3 and a.project_id in {_MANAGED} for update",
        tx.actor.user_id, tx.actor.project_ids, request_id,
    )  # fmt: skip
    if found is None:
        raise NotFound("There is no such request.")
    await require(tx, tx.actor, Permission.PROJECT_MANAGE, found["project_id"])
    if found["state"] != "pending":
        raise RequestDecided(f"The request is {found['state']}.")
    return found


async def _decide(tx: WriteTx, found: Any, state: str, note: str) -> AccessRequest:
    await tx.execute(
        "update access_requests set state = $2, note = $3, decided_by = $4, decided_at = now() where id = $1",
        found["id"], state, note[:MAX_REASON], tx.actor.user_id,
    )  # fmt: skip
    await _emit(tx, f"access_request.{state}", found["id"], found["project_id"])
    return await _request(tx, found["id"])


async def _request(tx: ReadTx, request_id: UUID) -> AccessRequest:
    row = await tx.fetchrow(f"{_SELECT} where a.id = $1", request_id)
    assert row is not None
    return AccessRequest(**dict(row))


async def _emit(tx: WriteTx, event_type: str, request_id: UUID, project_id: UUID) -> None:
    await emit(
        tx, Event(type=event_type, object_kind="access_request", object_id=str(request_id), project_id=project_id)
    )
