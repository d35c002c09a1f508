"""Time-based one-time codes (RFC 6238 with SHA-1, 30 s, 6 digits: what authenticator apps understand) and recovery codes.

A code serves once: the time step that it belongs to is recorded by one conditional UPDATE, and no step at or before a
recorded one is taken again. Recovery codes are 80 random bits each, stored hashed.
"""

import base64
import hmac
import io
import secrets
import string
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import segno

from annotomy.db.engine import WriteTx
from annotomy.errors import Conflict, Unauthenticated
from annotomy.events import Event, emit
from annotomy.identity.notices import SECOND_FACTOR_ADDED, SECOND_FACTOR_REMOVED, enqueue_notice
from annotomy.identity.schemas import NewTotp
from annotomy.identity.seal import Seal
from annotomy.identity.tokens import secret_hash

STEP_S = 30
DIGITS = 6
SECRET_BYTES = 20
"""The size of the hash's output, as RFC 4226 4 advises."""
DRIFT_STEPS = 1
"""A phone's clock may be half a minute off either way."""
RECOVERY_CODES = 10
RECOVERY_CHARACTERS = 16
SEAL_PURPOSE = "totp secret"
_RECOVERY_ALPHABET = "".join(c for c in string.digits + string.ascii_lowercase if c not in "l1o0")
_WRONG = "The code is wrong or was used before."


def code_at(secret: bytes, step: int) -> str:
    """RFC 4226 5.3 over the number of the time step."""
    digest = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 0x0F
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**DIGITS:0{DIGITS}d}"


def matching_step(secret: bytes, code: str, now: datetime) -> int | None:
    """The time step that the code belongs to, if it is near."""
    present = int(now.timestamp()) // STEP_S
    found = None
    for step in range(present - DRIFT_STEPS, present + DRIFT_STEPS + 1):
        if hmac.compare_digest(code_at(secret, step).encode(), code.encode()):
            found = step
    return found


async def begin(tx: WriteTx, seal: Seal) -> NewTotp:
    """A new secret, which counts once a code of it was confirmed. Raises Conflict while there is a confirmed one."""
    secret = secrets.token_bytes(SECRET_BYTES)
    done = await tx.fetchval(
        "insert into totp_factors as t (user_id, secret) values ($1, $2) on conflict (user_id) do update"
        " set secret = excluded.secret, last_step = 0, created_at = now() where t.confirmed_at is null returning user_id",
        tx.actor.user_id, seal.close(secret, purpose=SEAL_PURPOSE),
    )  # fmt: skip
    if done is None:
        raise Conflict("There is an authenticator already. Remove it first.")
    text = base64.b32encode(secret).decode()
    label = quote(f"Annotomy:{tx.actor.name}")
    uri = f"otpauth://totp/{label}?" + urlencode({"secret": text, "issuer": "Annotomy"})
    return NewTotp(secret=text, uri=uri, qr_svg=_qr(uri))


async def confirm(tx: WriteTx, seal: Seal, code: str, now: datetime) -> list[str]:
    """The authenticator counts from now on. Returns recovery codes, to be shown once."""
    await _take_code(tx, seal, tx.actor.user_id, code, now, confirmed=False)
    await tx.execute("update totp_factors set confirmed_at = now() where user_id = $1", tx.actor.user_id)
    await emit(
        tx,
        Event(type="second_factor.added", object_kind="user", object_id=str(tx.actor.user_id), data={"kind": "totp"}),
    )
    await enqueue_notice(tx, tx.actor.user_id, SECOND_FACTOR_ADDED)
    return await new_recovery_codes(tx)


async def check_code(tx: WriteTx, seal: Seal, user_id: UUID, code: str, now: datetime) -> None:
    """Takes a code, once. Raises Unauthenticated."""
    await _take_code(tx, seal, user_id, code, now, confirmed=True)


async def remove(tx: WriteTx) -> None:
    """Recovery codes stay while passkeys need them."""
    done = await tx.fetchval("delete from totp_factors where user_id = $1 returning confirmed_at", tx.actor.user_id)
    if done is not None:
        await after_removal(tx, "totp")


async def after_removal(tx: WriteTx, kind: str) -> None:
    user_id = tx.actor.user_id
    await tx.execute(
        "delete from recovery_codes where user_id = $1 and not exists (select from passkeys where user_id = $1)"
        " and not exists (select from totp_factors where user_id = $1 and confirmed_at is not null)",
        user_id,
    )
    await emit(tx, Event(type="second_factor.removed", object_kind="user", object_id=str(user_id), data={"kind": kind}))
    await enqueue_notice(tx, user_id, SECOND_FACTOR_REMOVED)


async def new_recovery_codes(tx: WriteTx) -> list[str]:
    """Replaces all earlier ones."""
    codes = [
        "".join(secrets.choice(_RECOVERY_ALPHABET) for _ in range(RECOVERY_CHARACTERS)) for _ in range(RECOVERY_CODES)
    ]
    await tx.execute("delete from recovery_codes where user_id = $1", tx.actor.user_id)
    await tx.executemany(
        "insert into recovery_codes (user_id, hash) values ($1, $2)",
        [(tx.actor.user_id, _recovery_hash(tx.actor.user_id, code)) for code in codes],
    )
    await emit(tx, Event(type="recovery_codes.made", object_kind="user", object_id=str(tx.actor.user_id)))
    return ["-".join(code[at : at + 4] for at in range(0, RECOVERY_CHARACTERS, 4)) for code in codes]


async def check_recovery_code(tx: WriteTx, user_id: UUID, code: str) -> None:
    """Takes a code, once. Raises Unauthenticated."""
    plain = code.replace("-", "").replace(" ", "").lower()
    done = await tx.fetchval(
        "update recovery_codes set used_at = now() where user_id = $1 and hash = $2 and used_at is null returning 1",
        user_id, _recovery_hash(user_id, plain),
    )  # fmt: skip
    if done is None:
        raise Unauthenticated(_WRONG)
    await emit(tx, Event(type="security.recovery_code_used", object_kind="user", object_id=str(user_id)))


async def _take_code(tx: WriteTx, seal: Seal, user_id: UUID, code: str, now: datetime, *, confirmed: bool) -> None:
    row: Any = await tx.fetchrow(
        "select secret from totp_factors where user_id = $1 and (confirmed_at is not null) = $2", user_id, confirmed
    )
    step = (
        None
        if row is None
        else matching_step(seal.open(row["secret"], purpose=SEAL_PURPOSE), code.replace(" ", ""), now)
    )
    taken = step is not None and await tx.fetchval(
        "update totp_factors set last_step = $2 where user_id = $1 and last_step < $2 returning 1", user_id, step
    )
    if not taken:
        raise Unauthenticated(_WRONG)


def _recovery_hash(user_id: UUID, code: str) -> bytes:
    return secret_hash(f"{user_id}:{code}")


def _qr(uri: str) -> str:
    """An SVG of the code, dark on light whatever the page's colours: cameras want the contrast."""
    out = io.BytesIO()
    segno.make(uri, error="m").save(out, kind="svg", scale=4, border=3, light="#fff", dark="#000", xmldecl=False)
    return out.getvalue().decode()
