"""Sign-in, refresh and sign-out. A refresh token is used once: its rotation is one conditional UPDATE."""

from uuid import UUID

from annotomy.actor import SYSTEM, Actor
from annotomy.db.engine import WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import Unauthenticated
from annotomy.events import Event, emit
from annotomy.identity.passwords import password_matches
from annotomy.identity.schemas import TokenAnswer
from annotomy.identity.tokens import ACCESS_LIFETIME, REFRESH_LIFETIME, TokenSigner, new_secret, secret_hash
from annotomy.services import Services


async def sign_in(services: Services, signer: TokenSigner, username: str, password: str, client: str) -> TokenAnswer:
    """Raises Unauthenticated with one wording for every reason."""
    async with services.db.read(SYSTEM) as tx:
        user = await tx.fetchrow(
            "select id, username, password_hash, state, is_admin from users where lower(username) = lower($1) and not is_service",
            username,
        )
    matches = await password_matches(user["password_hash"] if user else None, password)
    if user is None or not matches or user["state"] != "active":
        raise Unauthenticated("The username or the password is wrong, or the account is not active.")
    actor = Actor(user_id=user["id"], name=user["username"], is_admin=user["is_admin"])
    session_id = new_id()
    async with services.db.write(actor) as tx:
        await tx.execute(
            "insert into sessions (id, user_id, client, expires_at) values ($1, $2, $3, $4)",
            session_id, user["id"], client[:200], services.clock.now() + REFRESH_LIFETIME,
        )  # fmt: skip
        refresh = await _issue_refresh(tx, session_id)
        await emit(tx, Event(type="session.started", object_kind="session", object_id=str(session_id)))
    return _answer(services, signer, user["id"], session_id, refresh)


async def refresh(services: Services, signer: TokenSigner, refresh_token: str) -> TokenAnswer:
    """Exactly one caller wins a refresh token. A second use revokes the session: one of the two users is a thief."""
    digest = secret_hash(refresh_token)
    async with services.db.write(SYSTEM) as tx:
        session_id = await tx.fetchval(
            "update refresh_tokens set used_at = now() where hash = $1 and used_at is null returning session_id", digest
        )
        reused = None
        if session_id is None:
            reused = await tx.fetchval(
                "update sessions set revoked_at = now() where id = (select session_id from refresh_tokens where hash = $1)"
                " and revoked_at is null returning id",
                digest,
            )
            if reused is not None:
                await emit(tx, Event(type="session.refresh_reused", object_kind="session", object_id=str(reused)))
        else:
            user_id = await tx.fetchval(
                "update sessions s set last_used_at = now() from users u where s.id = $1 and u.id = s.user_id"
                " and s.revoked_at is null and s.expires_at > now() and u.state = 'active' returning u.id",
                session_id,
            )
            if user_id is not None:
                child = await _issue_refresh(tx, session_id)
                return _answer(services, signer, user_id, session_id, child)
    raise Unauthenticated("The refresh token is not valid any more. Sign in again.")


async def sign_out(services: Services, refresh_token: str) -> None:
    """Ends the session of this token; a token that is not known is no error."""
    async with services.db.write(SYSTEM) as tx:
        await tx.execute(
            "update sessions set revoked_at = now() where revoked_at is null"
            " and id = (select session_id from refresh_tokens where hash = $1)",
            secret_hash(refresh_token),
        )


async def _issue_refresh(tx: WriteTx, session_id: UUID) -> str:
    token = new_secret()
    await tx.execute("insert into refresh_tokens (hash, session_id) values ($1, $2)", secret_hash(token), session_id)
    return token


def _answer(
    services: Services, signer: TokenSigner, user_id: UUID, session_id: UUID, refresh_token: str
) -> TokenAnswer:
    return TokenAnswer(
        access_token=signer.sign(user_id=user_id, session_id=session_id, now=services.clock.now()),
        token_type="Bearer",  # noqa: S106 - the scheme's name (RFC 6750), no secret
        expires_in=int(ACCESS_LIFETIME.total_seconds()),
        refresh_token=refresh_token,
    )
