"""User accounts: asked for or made, approved, changed, suspended, deleted. Rights are checked here from the actor."""

import re
from typing import Any
from uuid import UUID

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, Conflict, Forbidden, NotFound
from annotomy.events import Event, emit
from annotomy.identity.notices import ACCOUNT_APPROVED, NAME_TAKEN, SendNotice, enqueue_notice
from annotomy.identity.revocation import announce
from annotomy.identity.schemas import User
from annotomy.identity.sessions import end_sessions
from annotomy.jobs.queue import enqueue

_USERNAME = re.compile(r"[\w.@+-]{1,64}")
_EMAIL = re.compile(r"[^\s@<>\"',;:]{1,64}@[^\s@<>\"',;:]{1,189}")
"""No more than what keeps a mail header whole: whether an address exists, only a mail tells."""
MAX_DISPLAY_NAME = 200
_NEXT_STATES = {
    "approve": ("pending", "active"),
    "suspend": ("active", "suspended"),
    "activate": ("suspended", "active"),
}
_COLUMNS = "id, username, email, display_name, state, is_admin, created_at"
LAST_ADMIN_LOCK = 0x61646D696E  # two administrators cannot remove each other at once


def require_admin(actor: Actor) -> None:
    """A key that is bound to projects, or lacks the scope `admin`, administers nobody."""
    allowed = (
        actor.is_admin
        and actor.project_ids is None
        and (actor.scopes is None or bool({"admin", "user.manage"} & actor.scopes))
    )
    if not allowed:
        raise Forbidden("This needs an administrator.")


def require_person(actor: Actor) -> None:
    """One's own security settings are changed by oneself, signed in; never by a program with a key."""
    if actor.kind != "user":
        raise Forbidden("This needs somebody who is signed in; an API key does not do.")


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
    state = "active" if password_hash or is_service else "pending"
    row = await _insert(tx, username, email, display_name, password_hash, state, is_admin, is_service)
    if row is None:
        raise Conflict("There is a user of this name already.")
    user = _user(row)
    await emit(tx, Event(type="user.created", object_kind="user", object_id=str(user.id)))
    return user


async def sign_up(tx: WriteTx, *, username: str, email: str, display_name: str, password_hash: str) -> UUID | None:
    """Asks for an account, which then waits for an administrator. None for a taken name: the asker is told by mail only,
    so that the answer does not tell which names exist."""
    require_email(email)
    row = await _insert(tx, username, email, display_name, password_hash, "pending", False, False)
    if row is None:
        await enqueue(tx, SendNotice(notice=NAME_TAKEN, address=email))
        return None
    await emit(tx, Event(type="user.signed_up", object_kind="user", object_id=str(row["id"])))
    return row["id"]


async def create_external_user(
    tx: WriteTx, *, username: str, email: str | None, display_name: str, active: bool
) -> User:
    """Somebody whom a sign-in service vouches for; has no password. Raises Conflict for a taken name: who holds the name
    here and who holds it there need not be the same."""
    state = "active" if active else "pending"
    safe_email = email if email and _EMAIL.fullmatch(email) else None
    row = await _insert(tx, username, safe_email, display_name[:MAX_DISPLAY_NAME], None, state, False, False)
    if row is None:
        raise Conflict("There is an account of this name already; sign in to it and link the service in your profile.")
    await emit(tx, Event(type="user.signed_up", object_kind="user", object_id=str(row["id"]), data={"by": "oidc"}))
    return _user(row)


async def change_state(tx: WriteTx, user_id: UUID, action: str) -> User:
    """`action` is approve, suspend or activate. Suspending ends the user's sessions."""
    before, after = _NEXT_STATES[action]
    if after == "suspended":
        await require_other_administrator(tx, without=user_id)
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
        await end_sessions(tx, user_id, why="account suspended")
    if action == "approve":
        await enqueue_notice(tx, user_id, ACCOUNT_APPROVED)
    await emit(tx, Event(type=f"user.{after}", object_kind="user", object_id=str(user_id)))
    await announce(tx, user_id)
    return _user(row)


async def delete_user(tx: WriteTx, user_id: UUID) -> None:
    """The account is emptied and can never be used again. Its name stays taken: what was done under it must not pass to
    somebody else."""
    await require_other_administrator(tx, without=user_id)
    done = await tx.fetchval(
        "update users set state = 'deleted', email = null, display_name = '', password_hash = null, is_admin = false,"
        " version = version + 1 where id = $1 and state <> 'deleted' and not is_service returning id",
        user_id,
    )
    if done is None:
        raise NotFound("There is no such user.")
    await end_sessions(tx, user_id, why="account deleted")
    await tx.execute("update api_keys set revoked_at = now() where user_id = $1 and revoked_at is null", user_id)
    for table in ("totp_factors", "recovery_codes", "passkeys", "password_resets", "external_identities"):
        await tx.execute(f"delete from {table} where user_id = $1", user_id)
    await emit(tx, Event(type="user.deleted", object_kind="user", object_id=str(user_id)))


async def update_user(
    tx: WriteTx,
    user_id: UUID,
    *,
    display_name: str | None = None,
    email: str | None = None,
    is_admin: bool | None = None,
) -> User:
    """Changes what is given. Raises Conflict rather than leaving the installation without an administrator."""
    if email is not None:
        require_email(email)
    if display_name is not None and len(display_name) > MAX_DISPLAY_NAME:
        raise BadRequest(f"A name to display has at most {MAX_DISPLAY_NAME} characters.")
    if is_admin is False:
        await require_other_administrator(tx, without=user_id)
    before = await tx.fetchrow(
        "select email, is_admin from users where id = $1 and state <> 'deleted' and not is_service for no key update",
        user_id,
    )
    if before is None:
        raise NotFound("There is no such user.")
    row = await tx.fetchrow(
        "update users set display_name = coalesce($2, display_name), email = coalesce($3, email),"
        f" is_admin = coalesce($4, is_admin), version = version + 1 where id = $1 returning {_COLUMNS}",
        user_id, display_name, email, is_admin,
    )  # fmt: skip
    assert row is not None
    changed = [name for name in ("email", "is_admin") if row[name] != before[name]]
    if "email" in changed:
        # A link that is on its way went to the old address.
        await tx.execute("delete from password_resets where user_id = $1", user_id)
    await emit(tx, Event(type="user.changed", object_kind="user", object_id=str(user_id), data={"changed": changed}))
    await announce(tx, user_id)
    return _user(row)


async def set_administrator(tx: WriteTx, user_id: UUID, *, is_admin: bool) -> bool:
    """The flag alone; the caller has decided the right and kept an administrator. False when nothing changed."""
    changed = await tx.fetchval(
        "update users set is_admin = $2, version = version + 1 where id = $1 and is_admin <> $2 returning true",
        user_id, is_admin,
    )  # fmt: skip
    await announce(tx, user_id)
    return bool(changed)


async def set_password(tx: WriteTx, *, username: str, password_hash: str) -> None:
    """For a person who lost theirs. Ends the user's sessions; a pending user becomes active. Raises NotFound."""
    user_id = await tx.fetchval(
        "update users set password_hash = $2, state = case state when 'pending' then 'active' else state end,"
        " version = version + 1 where lower(username) = lower($1) and not is_service returning id",
        username, password_hash,
    )  # fmt: skip
    if user_id is None:
        raise NotFound("There is no such user.")
    await end_sessions(tx, user_id, why="password set by the operator")
    await emit(tx, Event(type="user.password_set", object_kind="user", object_id=str(user_id)))


async def list_users(tx: ReadTx) -> list[User]:
    rows = await tx.fetch(
        f"select {_COLUMNS} from users where not is_service and state <> 'deleted' order by username limit 1000"
    )
    return [_user(row) for row in rows]


async def get_user(tx: ReadTx, user_id: UUID) -> User:
    row = await tx.fetchrow(f"select {_COLUMNS} from users where id = $1", user_id)
    if row is None:
        raise NotFound("There is no such user.")
    return _user(row)


def require_email(email: str) -> None:
    if not _EMAIL.fullmatch(email):
        raise BadRequest("This is not a mail address.")


async def _insert(
    tx: WriteTx,
    username: str,
    email: str | None,
    display_name: str,
    password_hash: str | None,
    state: str,
    is_admin: bool,
    is_service: bool,
) -> Any | None:
    if not _USERNAME.fullmatch(username):
        raise BadRequest("A username has 1 to 64 letters, digits or . _ @ + -")
    if len(display_name) > MAX_DISPLAY_NAME:
        raise BadRequest(f"A name to display has at most {MAX_DISPLAY_NAME} characters.")
    return await tx.fetchrow(
        "insert into users (id, username, email, display_name, password_hash, state, is_admin, is_service)"
        f" values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (lower(username)) do nothing returning {_COLUMNS}",
        new_id(), username, email, display_name, password_hash, state, is_admin, is_service,
    )  # fmt: skip


async def require_other_administrator(tx: WriteTx, *, without: UUID) -> None:
    """Raises Conflict when this user is the last active administrator."""
    await tx.execute("select pg_advisory_xact_lock($1)", LAST_ADMIN_LOCK)
    is_admin = await tx.fetchval("select is_admin and state = 'active' from users where id = $1", without)
    others = await tx.fetchval("select count(*) from users where is_admin and state = 'active' and id <> $1", without)
    if is_admin and not others:
        raise Conflict("This is the last administrator. Make another one first.")


def _user(row: Any) -> User:
    return User(**dict(row))
