"""/api/v1/sessions, and /api/v1/users/me/{totp,recovery-codes,passkeys}: what protects one's own account."""

from uuid import UUID

from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from annotomy.actor import Actor
from annotomy.errors import Unauthenticated
from annotomy.http.pages import Page
from annotomy.http.peer import Peer
from annotomy.identity import passkeys, second_factor, sessions, totp, users
from annotomy.identity.credentials import proof, require_fresh
from annotomy.identity.schemas import (
    Code,
    EndedSessions,
    NewPasskey,
    NewTotp,
    Passkey,
    PasskeyChallenge,
    RecoveryCodes,
    Session,
)
from annotomy.identity.seal import Seal
from annotomy.identity.tokens import TokenSigner, consume_transaction
from annotomy.services import Services


@get("/sessions", operation_id="ListSessions", opt={"permission": "own"})
async def list_sessions(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[Session]:
    """The devices on which one is signed in."""
    users.require_person(actor)
    async with services.db.read(actor) as tx:
        found = await sessions.list_sessions(tx, services.settings.identity.session_idle_minutes)
    return Page(items=found, next=None, total=len(found))


@delete("/sessions/{session_id:uuid}", operation_id="EndSession", opt={"permission": "own"})
async def end_session(
    session_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> None:
    """Sign out one device."""
    users.require_person(actor)
    async with services.db.write(actor) as tx:
        await sessions.end_session(tx, session_id)


@delete("/sessions", status_code=200, operation_id="EndOtherSessions", opt={"permission": "own"})
async def end_other_sessions(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> EndedSessions:
    """Sign out all devices but this one."""
    users.require_person(actor)
    async with services.db.write(actor) as tx:
        ended = await sessions.end_sessions(tx, actor.user_id, why="ended by its owner", spare=actor.session_id)
    return EndedSessions(ended)


@post("/users/me/totp", status_code=200, operation_id="BeginTotp", opt={"permission": "own"})
async def begin_totp(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> NewTotp:
    """A secret for an authenticator app; it counts once a code was confirmed."""
    users.require_person(actor)
    await require_fresh(services, actor, always=True)
    async with services.db.write(actor) as tx:
        return await totp.begin(tx, Seal(services.settings.identity.secret))


@post("/users/me/totp/confirm", status_code=200, operation_id="ConfirmTotp", opt={"permission": "own"})
async def confirm_totp(
    data: JSONBody[Code], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> RecoveryCodes:
    """Confirm the authenticator with a code of it; answers recovery codes, shown this once."""
    users.require_person(actor)
    await require_fresh(services, actor, always=True)
    async with services.db.write(actor) as tx:
        with proof():
            codes = await totp.confirm(tx, Seal(services.settings.identity.secret), data.code, services.clock.now())
        await sessions.prove_again(tx, [second_factor.CODE_METHOD, second_factor.BOTH])
    return RecoveryCodes(codes)


@delete("/users/me/totp", operation_id="RemoveTotp", opt={"permission": "own"})
async def remove_totp(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> None:
    """Remove the authenticator."""
    users.require_person(actor)
    await require_fresh(services, actor, always=True)
    async with services.db.write(actor) as tx:
        await totp.remove(tx)


@post("/users/me/recovery-codes", status_code=200, operation_id="MakeRecoveryCodes", opt={"permission": "own"})
async def make_recovery_codes(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> RecoveryCodes:
    """New recovery codes, shown this once; earlier ones are void."""
    users.require_person(actor)
    await require_fresh(services, actor, always=True)
    async with services.db.write(actor) as tx:
        return RecoveryCodes(await totp.new_recovery_codes(tx))


@post("/users/me/passkeys/challenge", status_code=200, operation_id="BeginPasskey", opt={"permission": "own"})
async def begin_passkey(
    peer: NamedDependency[Peer],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    signer: NamedDependency[TokenSigner],
) -> PasskeyChallenge:
    """What `navigator.credentials.create` takes."""
    users.require_person(actor)
    await require_fresh(services, actor, always=True)
    return await second_factor.begin_enrolment(services, signer, actor, peer)


@post("/users/me/passkeys", operation_id="AddPasskey", opt={"permission": "own"})
async def add_passkey(
    data: JSONBody[NewPasskey],
    peer: NamedDependency[Peer],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    signer: NamedDependency[TokenSigner],
) -> Passkey:
    """Register the passkey that the browser made."""
    users.require_person(actor)
    with proof():
        claims = await signer.verify_transaction(data.transaction, second_factor.ENROL)
        if claims["sub"] != str(actor.user_id):
            raise Unauthenticated("This challenge is somebody else's.")
    party = second_factor.relying_party(services, peer)
    async with services.db.write(actor) as tx:
        with proof():
            await consume_transaction(tx, claims)
        added = await passkeys.add_passkey(tx, party, claims["challenge"], data.passkey, data.name)
        await sessions.prove_again(tx, [second_factor.KEY_METHOD, second_factor.BOTH])
    return added


@delete("/users/me/passkeys/{passkey_id:uuid}", operation_id="RemovePasskey", opt={"permission": "own"})
async def remove_passkey(
    passkey_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> None:
    """Remove one of one's passkeys."""
    users.require_person(actor)
    await require_fresh(services, actor, always=True)
    async with services.db.write(actor) as tx:
        await passkeys.remove_passkey(tx, passkey_id)


handlers = [
    list_sessions, end_session, end_other_sessions, begin_totp, confirm_totp, remove_totp, make_recovery_codes,
    begin_passkey, add_passkey, remove_passkey,
]  # fmt: skip
