"""Sessions: one for each sign-in on a device. Refresh tokens are opaque, stored as hashes, and serve once.

Rotation is one statement that spends the token and inserts its child: of any number of parallel callers one wins, and the
unique parent proves it. A browser with two tabs, or a client whose answer got lost, may send the same token again within
ten seconds: it gets the same child, provided that this child was not used yet and the client is the same. The child is
HMAC-SHA-256(parent, salt), so it can be made again from the token presented, while the database alone, or the token
alone, does not give it; the salt is forgotten as soon as the child is used. Any other second use means that two parties
hold the token: the session ends.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from annotomy.actor import SYSTEM, Actor
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import NotFound, Unauthenticated
from annotomy.events import Event, emit
from annotomy.http.peer import Peer
from annotomy.identity.errors import NotActive
from annotomy.identity.notices import REFRESH_REUSED, enqueue_notice
from annotomy.identity.revocation import announce
from annotomy.identity.schemas import Session, TokenAnswer
from annotomy.identity.tokens import ACCESS_LIFETIME, TokenSigner, new_secret, secret_hash
from annotomy.services import Services

GRACE_S = 10
"""How long the direct parent of an unused token is answered once more."""
KEEP_ENDED_DAYS = 90
"""How long an ended session stays for its owner's list and for questions; then it goes with its tokens."""


class User(msgspec.Struct, frozen=True):
    """Who signs in."""

    id: UUID
    username: str
    is_admin: bool


async def start(
    services: Services, signer: TokenSigner, user: User, peer: Peer, *, methods: Sequence[str]
) -> TokenAnswer:
    """A new session for somebody whose proofs were checked. `methods` are words of RFC 8176."""
    session_id, token = new_id(), new_secret()
    actor = Actor(user_id=user.id, name=user.username, is_admin=user.is_admin, session_id=session_id)
    async with services.db.write(actor) as tx:
        await tx.execute(
            "delete from sessions where user_id = $1 and expires_at < now() - $2 * interval '1 day'",
            user.id,
            KEEP_ENDED_DAYS,
        )
        begun = await tx.fetchval(
            "insert into sessions (id, user_id, client, address, methods, expires_at)"
            " select $1, id, $3, $4, $5, now() + $6 * interval '1 day' from users where id = $2 and state = 'active'"
            " returning id",
            session_id, user.id, peer.agent, peer.address, list(methods), services.settings.identity.session_days,
        )  # fmt: skip
        if begun is None:
            raise NotActive("The account is not active.")
        await tx.execute(
            "insert into refresh_tokens (hash, session_id) values ($1, $2)", secret_hash(token), session_id
        )
        await emit(
            tx,
            Event(
                type="session.started", object_kind="session", object_id=str(session_id), data={"methods": [*methods]}
            ),
        )
    return _answer(services, signer, user.id, session_id, token)


async def refresh(services: Services, signer: TokenSigner, token: str, peer: Peer) -> TokenAnswer:
    """New tokens for a refresh token. Raises Unauthenticated, with one wording for every reason."""
    digest, salt = secret_hash(token), secrets.token_bytes(32)
    child = _child(token, salt)
    async with services.db.write(SYSTEM) as tx:
        # The session's row is locked first, by everyone who ends or refreshes it: a refresh cannot outrun a revocation.
        session = await tx.fetchrow(
            "select s.id, s.user_id, s.client from sessions s join users u on u.id = s.user_id"
            " where s.id = (select session_id from refresh_tokens where hash = $1) and s.revoked_at is null"
            " and s.expires_at > now() and s.last_used_at > now() - $2 * interval '1 minute' and u.state = 'active'"
            " for no key update of s",
            digest, services.settings.identity.session_idle_minutes,
        )  # fmt: skip
        if session is None:
            answer = None
        elif await _spend(tx, digest, salt, child):
            await tx.execute(
                "update sessions set last_used_at = now(), client = $2, address = $3 where id = $1",
                session["id"], peer.agent, peer.address,
            )  # fmt: skip
            answer = _answer(services, signer, session["user_id"], session["id"], child)
        else:
            again = await _same_child(tx, token, digest) if session["client"] == peer.agent else None
            if again is not None:
                answer = _answer(services, signer, session["user_id"], session["id"], again)
            else:
                await _end_family(tx, session["id"], session["user_id"])
                answer = None
    if answer is None:
        raise Unauthenticated("The refresh token is not valid any more. Sign in again.")
    return answer


async def sign_out(services: Services, token: str) -> None:
    """Ends the session of this token; a token that is not known is no error."""
    async with services.db.write(SYSTEM) as tx:
        row = await tx.fetchrow(
            "update sessions set revoked_at = now(), revoked_why = 'signed out' where revoked_at is null"
            " and id = (select session_id from refresh_tokens where hash = $1) returning id, user_id",
            secret_hash(token),
        )
        if row is not None:
            await emit(tx, Event(type="session.ended", object_kind="session", object_id=str(row["id"])))
            await announce(tx, row["user_id"])


async def list_sessions(tx: ReadTx, idle_minutes: int) -> list[Session]:
    """One's own that are alive, the latest used first."""
    rows = await tx.fetch(
        "select id, client, address, methods, created_at, last_used_at, authenticated_at, expires_at from sessions"
        " where user_id = $1 and revoked_at is null and expires_at > now() and last_used_at > now() - $2 * interval '1 minute'"
        " order by last_used_at desc limit 1000",
        tx.actor.user_id, idle_minutes,
    )  # fmt: skip
    return [Session(**dict(row), current=row["id"] == tx.actor.session_id) for row in rows]


async def end_session(tx: WriteTx, session_id: UUID) -> None:
    """Raises NotFound for a session that is not one's own, or over."""
    done = await tx.fetchval(
        "update sessions set revoked_at = now(), revoked_why = 'ended by its owner'"
        " where id = $1 and user_id = $2 and revoked_at is null returning id",
        session_id, tx.actor.user_id,
    )  # fmt: skip
    if done is None:
        raise NotFound("There is no such session of yours.")
    await emit(tx, Event(type="session.ended", object_kind="session", object_id=str(session_id)))
    await announce(tx, tx.actor.user_id)


async def end_sessions(tx: WriteTx, user_id: UUID, *, why: str, spare: UUID | None = None) -> int:
    """All sessions of a user, except one. Returns how many were ended."""
    rows = await tx.fetch(
        "update sessions set revoked_at = now(), revoked_why = $2 where user_id = $1 and revoked_at is null"
        " and id is distinct from $3 returning id",
        user_id, why, spare,
    )  # fmt: skip
    if rows:
        await emit(
            tx,
            Event(
                type="sessions.ended", object_kind="user", object_id=str(user_id), data={"count": len(rows), "why": why}
            ),
        )
    await announce(tx, user_id)
    return len(rows)


async def prove_again(tx: WriteTx, methods: Sequence[str]) -> datetime:
    """The actor's session was proven now, by these methods as well."""
    return await tx.fetchval(
        "update sessions set authenticated_at = now(), methods ="
        " (select array_agg(distinct m) from unnest(methods || $3::text[]) m) where id = $1 and user_id = $2"
        " returning authenticated_at",
        tx.actor.session_id, tx.actor.user_id, list(methods),
    )  # fmt: skip


async def _spend(tx: WriteTx, digest: bytes, salt: bytes, child: str) -> bool:
    """The one conditional UPDATE; the child is born in the same statement. False when the token was spent before."""
    return bool(
        await tx.fetchval(
            "with spent as (update refresh_tokens set used_at = now(), child_salt = $2 where hash = $1 and used_at is null"
            "  returning session_id, parent),"
            " forgotten as (update refresh_tokens set child_salt = null where hash = (select parent from spent))"
            " insert into refresh_tokens (hash, session_id, parent) select $3, session_id, $1 from spent returning 1",
            digest, salt, secret_hash(child),
        )
    )  # fmt: skip


async def _same_child(tx: ReadTx, token: str, digest: bytes) -> str | None:
    salt: bytes | None = await tx.fetchval(
        "select p.child_salt from refresh_tokens p join refresh_tokens c on c.parent = p.hash"
        " where p.hash = $1 and c.used_at is null and p.used_at > now() - $2 * interval '1 second'",
        digest, GRACE_S,
    )  # fmt: skip
    return None if salt is None else _child(token, salt)


async def _end_family(tx: WriteTx, session_id: UUID, user_id: UUID) -> None:
    await tx.execute(
        "update sessions set revoked_at = now(), revoked_why = 'a refresh token was used twice' where id = $1",
        session_id,
    )
    await emit(
        tx,
        Event(
            type="security.refresh_reused",
            object_kind="session",
            object_id=str(session_id),
            data={"user": str(user_id)},
        ),
    )
    await enqueue_notice(tx, user_id, REFRESH_REUSED)
    await announce(tx, user_id)


def _child(token: str, salt: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.digest(token.encode(), salt, hashlib.sha256)).decode().rstrip("=")


def _answer(services: Services, signer: TokenSigner, user_id: UUID, session_id: UUID, token: str) -> TokenAnswer:
    return TokenAnswer(
        access_token=signer.sign(user_id=user_id, session_id=session_id, now=services.clock.now()),
        token_type="Bearer",  # noqa: S106 - the scheme's name (RFC 6750), no secret
        expires_in=int(ACCESS_LIFETIME.total_seconds()),
        refresh_token=token,
    )


def user_of(row: Any) -> User:
    return User(id=row["id"], username=row["username"], is_admin=row["is_admin"])
