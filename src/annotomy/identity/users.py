"""User accounts: made, approved, suspended. Operations; rights are checked here from the actor."""

import re
from typing import Any
from uuid import UUID

import asyncpg

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, Conflict, Forbidden, NotFound
from annotomy.events import Event, emit
from annotomy.identity.schemas import User

_USERNAME = re.compile(r"^[\w.@+-]{1,64}$")
_NEXT_STATES = {
    "approve": ("pending", "active"),
    "suspend": ("active", "suspended"),
    "activate": ("suspended", "active"),
}
_COLUMNS = "id, username, email, display_name, state, is_admin, created_at"


def require_admin(actor: Actor) -> None:
    if not actor.is_admin:
        raise Forbidden("This needs an administrator.")


async def create_user(
    tx: WriteTx,
    *,
    username: str,
    password_hash: str | None,
    email: str | None = None,
    display_name: str = "",
    is_admin: bool = False,
    is_service: bool = False,
) -> User:
    """Without a password hash the user stays pending, unless it is a service principal. Raises Conflict for a taken name."""
    if not _USERNAME.match(username):
        raise BadRequest("A username has 1 to 64 letters, digits or . _ @ + -")
    state = "active" if password_hash or is_service else "pending"
    try:
        row = await tx.fetchrow(
            "insert into users (id, username, email, display_name, password_hash, state, is_admin, is_service)"
            f" values ($1, $2, $3, $4, $5, $6, $7, $8) returning {_COLUMNS}",
            new_id(), username, email, display_name, password_hash, state, is_admin, is_service,
        )  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        raise Conflict("There is a user of this name already.") from error
    user = _user(row)
    await emit(tx, Event(type="user.created", object_kind="user", object_id=str(user.id)))
    return user


async def change_state(tx: WriteTx, user_id: UUID, action: str) -> User:
    """`action` is approve, suspend or activate. Suspending ends the user's sessions."""
    before, after = _NEXT_STATES[action]
    row = await tx.fetchrow(
        f"update users set state = $3, version = version + 1 where id = $1 and state = $2 returning {_COLUMNS}",
        user_id, before, after,
    )  # fmt: skip
    if row is None:
        found = await tx.fetchval("select state from users where id = $1", user_id)
        if found is None:
            raise NotFound("There is no such user.")
        raise Conflict(f"The user is {found}, so this does not apply.")
    if after == "suspended":
        await tx.execute("update sessions set revoked_at = now() where user_id = $1 and revoked_at is null", user_id)
    await emit(tx, Event(type=f"user.{after}", object_kind="user", object_id=str(user_id)))
    return _user(row)


async def set_password(tx: WriteTx, *, username: str, password_hash: str) -> None:
    """For a person who lost theirs. Ends the user's sessions; a pending user becomes active. Raises NotFound."""
    user_id = await tx.fetchval(
        "update users set password_hash = $2, state = case state when 'pending' then 'active' else state end,"
        " version = version + 1 where lower(username) = lower($1) and not is_service returning id",
        username, password_hash,
    )  # fmt: skip
    if user_id is None:
        raise NotFound("There is no such user.")
    await tx.execute("update sessions set revoked_at = now() where user_id = $1 and revoked_at is null", user_id)
    await emit(tx, Event(type="user.password_set", object_kind="user", object_id=str(user_id)))


async def list_users(tx: ReadTx) -> list[User]:
    rows = await tx.fetch(f"select {_COLUMNS} from users where not is_service order by username limit 1000")
    return [_user(row) for row in rows]


def _user(row: Any) -> User:
    return User(**dict(row))
