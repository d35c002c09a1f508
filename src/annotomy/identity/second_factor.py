"""Sign-in as a whole: a password, then a second factor where there is one; a passkey alone; and proving it again.

Between two steps the client holds a transaction: a signed token of five minutes that names what was proven so far and
serves once. Guesses of codes are limited for each user over all addresses, since who guesses knows the password already.
"""

import ipaddress
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from annotomy.actor import SYSTEM, Actor
from annotomy.db.engine import WriteTx
from annotomy.errors import BadRequest, Unauthenticated
from annotomy.events import Event, emit
from annotomy.http.peer import Peer, public_origin
from annotomy.identity import passkeys, sessions, throttle, totp
from annotomy.identity.credentials import check_password, factors_of
from annotomy.identity.errors import NotActive, SecondFactorRequired
from annotomy.identity.schemas import (
    PasskeyChallenge,
    PasskeySignIn,
    RelyingParty,
    SecondFactor,
    StepUp,
    TokenAnswer,
)
from annotomy.identity.seal import Seal
from annotomy.identity.sessions import User, user_of
from annotomy.identity.throttle import count_attempt, network_of
from annotomy.identity.tokens import TokenSigner, consume_transaction
from annotomy.services import Services

SIGN_IN, PASSKEY, STEP_UP, ENROL = "sign-in", "passkey-sign-in", "step-up", "passkey-enrolment"
"""What a transaction is for: its audience, so that one cannot pass for another."""
PASSWORD_METHOD, CODE_METHOD, KEY_METHOD, BOTH = "pwd", "otp", "hwk", "mfa"
"""RFC 8176."""


def relying_party(services: Services, peer: Peer) -> RelyingParty:
    origin = public_origin(services.settings.http, peer.host)
    return RelyingParty(id=urlsplit(origin).hostname or "", origin=origin)


def passkeys_work(party: RelyingParty) -> bool:
    """Browsers bind passkeys to names, never to addresses, and only over TLS except on localhost."""
    try:
        ipaddress.ip_address(party.id)
    except ValueError:
        return party.origin.startswith("https://") or party.id == "localhost"
    return False


async def sign_in(services: Services, signer: TokenSigner, username: str, password: str, peer: Peer) -> TokenAnswer:
    """Raises Unauthenticated, TooManyRequests, or SecondFactorRequired with what the next step needs."""
    user = await check_password(services, username, password, peer)
    async with services.db.read(SYSTEM) as tx:
        factors = await factors_of(tx, user.id)
        if factors.any:
            challenge = passkeys.new_challenge()
            party = relying_party(services, peer)
            options = await passkeys.request_options(tx, user.id, party, challenge) if factors.passkeys else None
            claims = {"sub": str(user.id), "challenge": challenge}
            raise SecondFactorRequired(
                "Continue with a second factor.",
                transaction=signer.sign_transaction(SIGN_IN, claims, now=services.clock.now()),
                methods=factors.methods(),
                passkey_options=options,
            )
    return await sessions.start(services, signer, user, peer, methods=[PASSWORD_METHOD])


async def continue_sign_in(services: Services, signer: TokenSigner, step: SecondFactor, peer: Peer) -> TokenAnswer:
    claims = await signer.verify_transaction(step.transaction, SIGN_IN)
    user_id = UUID(claims["sub"])
    method = await _prove(services, user_id, step, claims, peer)
    user = await _active_user(services, user_id)
    return await sessions.start(services, signer, user, peer, methods=[PASSWORD_METHOD, method, BOTH])


async def begin_passkey_sign_in(services: Services, signer: TokenSigner, peer: Peer) -> PasskeyChallenge:
    """For a passkey that the browser finds by itself: no name is asked, so none can be probed."""
    await count_attempt(services, throttle.SIGN_IN_ADDRESS, network_of(peer.address))
    challenge = passkeys.new_challenge()
    async with services.db.read(SYSTEM) as tx:
        options = await passkeys.request_options(tx, None, relying_party(services, peer), challenge)
    claims = {"sub": "anyone", "challenge": challenge}
    return PasskeyChallenge(signer.sign_transaction(PASSKEY, claims, now=services.clock.now()), options)


async def finish_passkey_sign_in(
    services: Services, signer: TokenSigner, step: PasskeySignIn, peer: Peer
) -> TokenAnswer:
    claims = await signer.verify_transaction(step.transaction, PASSKEY)
    async with services.db.write(SYSTEM) as tx:
        await consume_transaction(tx, claims)
        party = relying_party(services, peer)
        user_id = await passkeys.check_assertion(tx, None, party, claims["challenge"], step.passkey)
        await throttle.give_back(tx, throttle.SIGN_IN_ADDRESS, network_of(peer.address))
    user = await _active_user(services, user_id)
    # The authenticator held the key and verified its holder: two factors in one.
    return await sessions.start(services, signer, user, peer, methods=[KEY_METHOD, BOTH])


async def begin_step_up(services: Services, signer: TokenSigner, actor: Actor, peer: Peer) -> PasskeyChallenge:
    challenge = passkeys.new_challenge()
    async with services.db.read(actor) as tx:
        options = await passkeys.request_options(tx, actor.user_id, relying_party(services, peer), challenge)
    claims = {"sub": str(actor.user_id), "challenge": challenge}
    return PasskeyChallenge(signer.sign_transaction(STEP_UP, claims, now=services.clock.now()), options)


async def step_up(services: Services, signer: TokenSigner, actor: Actor, proof: StepUp, peer: Peer) -> None:
    """The session counts as proven now. Raises Unauthenticated."""
    if proof.password is not None:
        await check_password(services, actor.name, proof.password, peer)
        method = PASSWORD_METHOD
    else:
        claims = await signer.verify_transaction(proof.transaction, STEP_UP) if proof.transaction else {}
        if claims and claims["sub"] != str(actor.user_id):
            raise Unauthenticated("This challenge is somebody else's.")
        method = await _prove(services, actor.user_id, proof, claims, peer)
    async with services.db.write(actor) as tx:
        await sessions.prove_again(tx, [method])
        await emit(
            tx,
            Event(
                type="session.proven", object_kind="session", object_id=str(actor.session_id), data={"method": method}
            ),
        )


async def begin_enrolment(services: Services, signer: TokenSigner, actor: Actor, peer: Peer) -> PasskeyChallenge:
    challenge = passkeys.new_challenge()
    async with services.db.read(actor) as tx:
        options = await passkeys.registration_options(tx, actor, relying_party(services, peer), challenge)
    claims = {"sub": str(actor.user_id), "challenge": challenge}
    return PasskeyChallenge(signer.sign_transaction(ENROL, claims, now=services.clock.now()), options)


async def _prove(
    services: Services, user_id: UUID, proof: SecondFactor | StepUp, claims: dict[str, Any], peer: Peer
) -> str:
    """Checks one second factor, ends the transaction with it, and returns the method's word."""
    subject, network = str(user_id), network_of(peer.address)
    await count_attempt(services, throttle.SECOND_FACTOR, subject, network)
    await count_attempt(services, throttle.SECOND_FACTOR_USER, subject)
    try:
        async with services.db.write(SYSTEM) as tx:
            method = await _check(services, tx, user_id, proof, claims, peer)
            if claims:
                await consume_transaction(tx, claims)
            await throttle.forgive(tx, throttle.SECOND_FACTOR, subject, network)
            await throttle.give_back(tx, throttle.SECOND_FACTOR_USER, subject)
    except Unauthenticated:
        async with services.db.write(SYSTEM) as tx:
            data = {"address": peer.address}
            await emit(
                tx,
                Event(
                    type="security.second_factor_refused",
                    object_kind="user",
                    object_id=subject,
                    outcome="denied",
                    data=data,
                ),
            )
        raise
    return method


async def _check(
    services: Services, tx: WriteTx, user_id: UUID, proof: SecondFactor | StepUp, claims: dict[str, Any], peer: Peer
) -> str:
    if proof.totp is not None:
        seal = Seal(services.settings.identity.secret)
        await totp.check_code(tx, seal, user_id, proof.totp, services.clock.now())
        return CODE_METHOD
    if proof.recovery_code is not None:
        await totp.check_recovery_code(tx, user_id, proof.recovery_code)
        return CODE_METHOD
    if proof.passkey is not None and claims:
        await passkeys.check_assertion(tx, user_id, relying_party(services, peer), claims["challenge"], proof.passkey)
        return KEY_METHOD
    raise BadRequest("Send one of totp, recovery_code, or passkey with its transaction.")


async def _active_user(services: Services, user_id: UUID) -> User:
    async with services.db.read(SYSTEM) as tx:
        row = await tx.fetchrow("select id, username, is_admin from users where id = $1 and state = 'active'", user_id)
    if row is None:
        raise NotActive("The account is not active.")
    return user_of(row)


def methods_of(claim: Sequence[str]) -> list[str]:
    """What a sign-in service says of how it proved somebody, among the words that we know (RFC 8176)."""
    return [word for word in claim if word in (PASSWORD_METHOD, CODE_METHOD, KEY_METHOD, BOTH)]
