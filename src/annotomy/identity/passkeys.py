"""Passkeys: WebAuthn level 2 registration and assertion, as a second factor or instead of a password.

The challenge travels in a signed transaction that serves once, so no state waits on the server. Attestation is not asked
for: which brand of authenticator somebody has is none of our business.
"""

import json
import secrets
from typing import Any
from uuid import UUID

import asyncpg
import webauthn
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, Conflict, NotFound, Unauthenticated
from annotomy.events import Event, emit
from annotomy.identity.notices import SECOND_FACTOR_ADDED, enqueue_notice
from annotomy.identity.schemas import Passkey, RelyingParty
from annotomy.identity.totp import after_removal

CHALLENGE_BYTES = 32
MOST_PASSKEYS = 20
_REFUSED = "The passkey was not accepted."


def new_challenge() -> str:
    return bytes_to_base64url(secrets.token_bytes(CHALLENGE_BYTES))


async def registration_options(tx: ReadTx, actor: Actor, party: RelyingParty, challenge: str) -> dict[str, Any]:
    """For `navigator.credentials.create`."""
    options = webauthn.generate_registration_options(
        rp_id=party.id,
        rp_name="Annotomy",
        user_name=actor.name,
        user_id=actor.user_id.bytes,
        challenge=base64url_to_bytes(challenge),
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.PREFERRED
        ),
        exclude_credentials=await _descriptors(tx, actor.user_id),
    )
    return json.loads(webauthn.options_to_json(options))


async def request_options(tx: ReadTx, user_id: UUID | None, party: RelyingParty, challenge: str) -> dict[str, Any]:
    """For `navigator.credentials.get`. Without a user any passkey of this site may answer, and has to verify its holder."""
    must_verify = user_id is None
    options = webauthn.generate_authentication_options(
        rp_id=party.id,
        challenge=base64url_to_bytes(challenge),
        allow_credentials=await _descriptors(tx, user_id) if user_id else None,
        user_verification=UserVerificationRequirement.REQUIRED
        if must_verify
        else UserVerificationRequirement.PREFERRED,
    )
    return json.loads(webauthn.options_to_json(options))


async def add_passkey(
    tx: WriteTx, party: RelyingParty, challenge: str, credential: dict[str, Any], name: str
) -> Passkey:
    """Raises BadRequest when the authenticator's answer does not belong to this challenge, origin or site."""
    try:
        verified = webauthn.verify_registration_response(
            credential=credential,
            expected_challenge=base64url_to_bytes(challenge),
            expected_rp_id=party.id,
            expected_origin=party.origin,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError) as error:
        raise BadRequest(_REFUSED) from error
    if await tx.fetchval("select count(*) from passkeys where user_id = $1", tx.actor.user_id) >= MOST_PASSKEYS:
        raise Conflict(f"There are {MOST_PASSKEYS} passkeys already. Remove one first.")
    try:
        row = await tx.fetchrow(
            "insert into passkeys (id, user_id, credential_id, public_key, sign_count, name)"
            " values ($1, $2, $3, $4, $5, $6) returning id, name, created_at, last_used_at",
            new_id(), tx.actor.user_id, verified.credential_id, verified.credential_public_key, verified.sign_count,
            name.strip()[:100] or "passkey",
        )  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        raise Conflict("This passkey is registered already.") from error
    assert row is not None
    user_id = tx.actor.user_id
    await emit(
        tx, Event(type="second_factor.added", object_kind="user", object_id=str(user_id), data={"kind": "passkey"})
    )
    await enqueue_notice(tx, user_id, SECOND_FACTOR_ADDED)
    return Passkey(**dict(row))


async def check_assertion(
    tx: WriteTx, user_id: UUID | None, party: RelyingParty, challenge: str, credential: dict[str, Any]
) -> UUID:
    """The user whose passkey signed the challenge. Raises Unauthenticated.

    A signature counter that does not grow means a cloned authenticator (WebAuthn 7.2, step 21): refused.
    """
    try:
        credential_id = base64url_to_bytes(str(credential["id"]))
    except (KeyError, ValueError) as error:
        raise Unauthenticated(_REFUSED) from error
    row = await tx.fetchrow(
        "select id, user_id, public_key, sign_count from passkeys where credential_id = $1"
        " and ($2::uuid is null or user_id = $2) for update",
        credential_id, user_id,
    )  # fmt: skip
    if row is None:
        raise Unauthenticated(_REFUSED)
    try:
        verified = webauthn.verify_authentication_response(
            credential=credential,
            expected_challenge=base64url_to_bytes(challenge),
            expected_rp_id=party.id,
            expected_origin=party.origin,
            credential_public_key=row["public_key"],
            credential_current_sign_count=row["sign_count"],
            require_user_verification=user_id is None,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError) as error:
        raise Unauthenticated(_REFUSED) from error
    await tx.execute(
        "update passkeys set sign_count = $2, last_used_at = now() where id = $1", row["id"], verified.new_sign_count
    )
    return row["user_id"]


async def list_passkeys(tx: ReadTx) -> list[Passkey]:
    rows = await tx.fetch(
        "select id, name, created_at, last_used_at from passkeys where user_id = $1 order by created_at",
        tx.actor.user_id,
    )
    return [Passkey(**dict(row)) for row in rows]


async def remove_passkey(tx: WriteTx, passkey_id: UUID) -> None:
    done = await tx.fetchval(
        "delete from passkeys where id = $1 and user_id = $2 returning id", passkey_id, tx.actor.user_id
    )
    if done is None:
        raise NotFound("There is no such passkey of yours.")
    await after_removal(tx, "passkey")


async def _descriptors(tx: ReadTx, user_id: UUID) -> list[PublicKeyCredentialDescriptor]:
    rows = await tx.fetch("select credential_id from passkeys where user_id = $1", user_id)
    return [PublicKeyCredentialDescriptor(id=row["credential_id"]) for row in rows]
