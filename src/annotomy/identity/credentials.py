"""Proving who one is with a password: sign-in, change, reset, and proving it again (step-up)."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from annotomy.actor import SYSTEM, Actor
from annotomy.db.engine import WriteTx
from annotomy.errors import Unauthenticated
from annotomy.events import Event, emit
from annotomy.http.peer import Peer
from annotomy.identity import throttle
from annotomy.identity.errors import LinkExpired, ProofRefused, StepUpRequired
from annotomy.identity.notices import PASSWORD_CHANGED, SendPasswordReset, enqueue_notice
from annotomy.identity.passwords import hash_password, password_matches
from annotomy.identity.sessions import User, end_sessions
from annotomy.identity.throttle import count_attempt, network_of
from annotomy.identity.tokens import secret_hash
from annotomy.jobs.queue import enqueue
from annotomy.services import Services

WRONG = "The username or the password is wrong, or the account is not active."


@dataclass(frozen=True, slots=True)
class Factors:
    """Second factors that somebody has enrolled."""

    totp: bool
    recovery_codes: int
    passkeys: int

    @property
    def any(self) -> bool:
        return self.totp or self.passkeys > 0

    def methods(self) -> list[str]:
        offered = {
            "totp": self.totp,
            "recovery_code": self.recovery_codes > 0 and self.any,
            "passkey": self.passkeys > 0,
        }
        return [name for name, has in offered.items() if has]


async def check_password(services: Services, username: str, password: str, peer: Peer) -> User:
    """Raises Unauthenticated with one wording, after the same work, for every reason; TooManyRequests for names that
    exist and for names that do not."""
    name, network = username.lower()[:64], network_of(peer.address)
    await count_attempt(services, throttle.SIGN_IN_ADDRESS, network)
    await count_attempt(services, throttle.SIGN_IN, name, network)
    async with services.db.read(SYSTEM) as tx:
        user = await tx.fetchrow(
            "select id, username, password_hash, state, is_admin from users where lower(username) = $1 and not is_service",
            name,
        )
    matches = await password_matches(user["password_hash"] if user else None, password)
    if user is None or not matches or user["state"] != "active":
        async with services.db.write(SYSTEM) as tx:
            event = Event(
                type="security.sign_in_refused",
                object_kind="user",
                object_id=str(user["id"]) if user else "unknown",
                outcome="denied",
                data={"address": peer.address},
            )
            await emit(tx, event)
        raise Unauthenticated(WRONG)
    async with services.db.write(SYSTEM) as tx:
        await throttle.forgive(tx, throttle.SIGN_IN, name, network)
        await throttle.give_back(tx, throttle.SIGN_IN_ADDRESS, network)
    return User(id=user["id"], username=user["username"], is_admin=user["is_admin"])


@contextmanager
def proof() -> Generator[None]:
    """Around the check of a proof by somebody who is signed in: a wrong one is ProofRefused, not the end of the session."""
    try:
        yield
    except Unauthenticated as error:
        raise ProofRefused(error.detail) from error


async def change_password(services: Services, actor: Actor, current: str, new: str, peer: Peer) -> None:
    """Ends all other sessions."""
    with proof():
        await check_password(services, actor.name, current, peer)
    password_hash = await hash_password(new, username=actor.name)
    async with services.db.write(actor) as tx:
        await _set_password(tx, actor.user_id, password_hash)
        await end_sessions(tx, actor.user_id, why="password changed", spare=actor.session_id)


async def ask_for_reset(services: Services, name: str, peer: Peer) -> None:
    """The same answer after the same work, whether or not there is such an account."""
    await count_attempt(services, throttle.ANONYMOUS_FORM, network_of(peer.address))
    async with services.db.write(SYSTEM) as tx:
        if not await throttle.take(tx, throttle.MAIL, name.lower()[:254]):
            await enqueue(tx, SendPasswordReset(name=name[:254]))


async def reset_password(services: Services, token: str, new: str, peer: Peer) -> None:
    """Ends all sessions. A second factor stays and is asked for at the next sign-in. Raises LinkExpired."""
    await count_attempt(services, throttle.ANONYMOUS_FORM, network_of(peer.address))
    async with services.db.read(SYSTEM) as tx:
        row = await tx.fetchrow(f"select u.id, u.username {_VALID_RESET}", secret_hash(token))
    if row is None:
        raise LinkExpired("The link is not valid any more.")
    password_hash = await hash_password(new, username=row["username"])
    async with services.db.write(Actor(user_id=row["id"], name=row["username"])) as tx:
        user_id = await tx.fetchval(
            f"update password_resets set used_at = now() where hash = (select r.hash {_VALID_RESET}) and used_at is null"
            " returning user_id",
            secret_hash(token),
        )
        if user_id is None:
            raise LinkExpired("The link is not valid any more.")
        await _set_password(tx, user_id, password_hash)
        await end_sessions(tx, user_id, why="password reset")


_VALID_RESET = (
    "from password_resets r join users u on u.id = r.user_id where r.hash = $1 and r.used_at is null"
    " and r.expires_at > now() and u.state = 'active'"
)


async def factors_of(tx: Any, user_id: UUID) -> Factors:
    row = await tx.fetchrow(
        "select exists (select from totp_factors where user_id = $1 and confirmed_at is not null) as totp,"
        " (select count(*) from recovery_codes where user_id = $1 and used_at is null) as recovery_codes,"
        " (select count(*) from passkeys where user_id = $1) as passkeys",
        user_id,
    )
    return Factors(**dict(row))


async def require_fresh(services: Services, actor: Actor, *, always: bool = False) -> None:
    """Raises StepUpRequired unless the session was proven within the last minutes (ANNOTOMY_STEP_UP_MINUTES).

    Asked of people who have a second factor, and of everyone where the installation or the operation (`always`) demands
    it. Keys, share links and the command line pass: they were issued by somebody who proved it.
    """
    if actor.kind != "user" or actor.session_id is None:
        return
    settings = services.settings.identity
    async with services.db.read(actor) as tx:
        factors = await factors_of(tx, actor.user_id)
        session = await tx.fetchrow(
            "select s.authenticated_at > now() - $2 * interval '1 minute' as recent, s.methods && '{otp,hwk,fed}' as strong,"
            " u.password_hash is not null as has_password from sessions s join users u on u.id = s.user_id where s.id = $1",
            actor.session_id, settings.step_up_minutes,
        )  # fmt: skip
    assert session is not None  # the credential was checked against it
    strong_enough = session["strong"] or not factors.any
    if not (session["recent"] and strong_enough) and (always or factors.any or settings.step_up_always):
        # Without any, as for somebody whom a sign-in service vouches for: signing in again is the proof.
        methods = [*(["password"] if strong_enough and session["has_password"] else []), *factors.methods()]
        raise StepUpRequired("Prove again who you are, then repeat this.", methods=methods)


async def _set_password(tx: WriteTx, user_id: UUID, password_hash: str) -> None:
    await tx.execute(
        "update users set password_hash = $2, password_changed_at = now(), version = version + 1 where id = $1",
        user_id, password_hash,
    )  # fmt: skip
    await tx.execute("delete from password_resets where user_id = $1", user_id)
    await emit(tx, Event(type="password.changed", object_kind="user", object_id=str(user_id)))
    await enqueue_notice(tx, user_id, PASSWORD_CHANGED)
