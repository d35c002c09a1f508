"""Signed tokens: access JWTs (RFC 9068) and the short transactions of sign-in, both with Ed25519 (RFC 8037).

Signing keys lie in the database, so that every process and host signs and verifies alike; the public parts are published
as a JWK set (RFC 7517). The newest key signs, older ones verify until they are retired.
"""

import asyncio
import hashlib
import json
import secrets
import time
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import OKPKey

from annotomy.actor import SYSTEM
from annotomy.db.engine import WriteTx
from annotomy.errors import Conflict, NotFound, Unauthenticated
from annotomy.events import Event, emit
from annotomy.identity.revocation import announce_signing_keys
from annotomy.identity.seal import Seal
from annotomy.services import Services

ISSUER = "annotomy"
AUDIENCE = "annotomy-api"
ALGORITHMS = ["EdDSA"]
"""Fixed: what a token says of its own algorithm chooses nothing."""
# RFC 9864 prefers the name Ed25519, which most JWT libraries of our clients do not know yet; our keys are Ed25519 alone,
# so the older name leaves nothing open.
warnings.filterwarnings("ignore", message="EdDSA is deprecated", category=SecurityWarning)
ACCESS_TYPE = "at+jwt"
SHARE_AUDIENCE, SHARE_TYPE = "annotomy-share", "annotomy-share+jwt"
"""Of who came by a share link: taken for no other kind of token, nor another for it."""
TRANSACTION_TYPE = "annotomy-transaction+jwt"
ACCESS_LIFETIME = timedelta(minutes=10)
TRANSACTION_LIFETIME = timedelta(minutes=5)
KEY_LOCK = 0x6B6579  # one process makes the first key
RELOAD_PAUSE_S = 1.0
"""A token with an unknown key makes us look for new keys, but forged ones do not make us look all the time."""
SEAL_PURPOSE = "signing key"


@dataclass(frozen=True, slots=True)
class AccessClaims:
    user_id: UUID
    session_id: UUID
    expires_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class ShareClaims:
    link_id: UUID
    expires_at: float
    """Seconds since the epoch."""


class TokenSigner:
    """One for each process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._seal = Seal(services.settings.identity.secret)
        self._keys: dict[str, OKPKey] = {}
        self._newest = ""
        self._loaded_at = 0.0
        self._loading = asyncio.Lock()

    @classmethod
    async def load(cls, services: Services) -> "TokenSigner":
        """Makes the first key when there is none."""
        signer = cls(services)
        async with services.db.write(SYSTEM) as tx:
            await tx.execute("select pg_advisory_xact_lock($1)", KEY_LOCK)
            if await tx.fetchval("select 1 from signing_keys where retired_at is null limit 1") is None:
                await add_signing_key(tx, signer._seal)
        await signer.reload()
        return signer

    async def reload(self) -> None:
        async with self._services.db.read(SYSTEM) as tx:
            rows = await tx.fetch(
                "select kid, private_key from signing_keys where retired_at is null order by created_at, kid"
            )
        opened = {row["kid"]: json.loads(self._seal.open(row["private_key"], purpose=SEAL_PURPOSE)) for row in rows}
        self._keys = {kid: OKPKey.import_key(jwk) for kid, jwk in opened.items()}
        self._newest = list(opened)[-1]
        self._loaded_at = time.monotonic()

    def sign(self, *, user_id: UUID, session_id: UUID, now: datetime) -> str:
        claims = {"aud": AUDIENCE, "sub": str(user_id), "sid": str(session_id)}
        return self._encode(ACCESS_TYPE, claims, now, ACCESS_LIFETIME)

    def sign_share(self, link_id: UUID, *, now: datetime, lifetime: timedelta) -> str:
        """For who opened a share link; the link is asked at each use (projects/share_links.py)."""
        return self._encode(SHARE_TYPE, {"aud": SHARE_AUDIENCE, "sub": str(link_id)}, now, lifetime)

    def sign_transaction(
        self, purpose: str, claims: dict[str, Any], *, now: datetime, lifetime: timedelta = TRANSACTION_LIFETIME
    ) -> str:
        """One step of a sign-in or enrolment that the next request continues. Use `consume_transaction` to end it once."""
        return self._encode(TRANSACTION_TYPE, {**claims, "aud": purpose}, now, lifetime)

    async def verify(self, token: str) -> AccessClaims | ShareClaims:
        """Raises Unauthenticated for a token that is forged, expired, of another issuer, type or algorithm."""
        kind, claims = await self._decode(token, {ACCESS_TYPE: AUDIENCE, SHARE_TYPE: SHARE_AUDIENCE})
        try:
            if kind == SHARE_TYPE:
                return ShareClaims(UUID(claims["sub"]), float(claims["exp"]))
            return AccessClaims(UUID(claims["sub"]), UUID(claims["sid"]), float(claims["exp"]))
        except (KeyError, ValueError, TypeError) as error:
            raise Unauthenticated("The access token is not valid or has expired.") from error

    async def verify_transaction(self, token: str, purpose: str) -> dict[str, Any]:
        return (await self._decode(token, {TRANSACTION_TYPE: purpose}))[1]

    def _encode(self, token_type: str, claims: dict[str, Any], now: datetime, lifetime: timedelta) -> str:
        header = {"alg": ALGORITHMS[0], "kid": self._newest, "typ": token_type}
        times = {"iat": int(now.timestamp()), "exp": int((now + lifetime).timestamp())}
        body = {"iss": ISSUER, "jti": secrets.token_urlsafe(16), **times, **claims}
        return jwt.encode(header, body, self._keys[self._newest], algorithms=ALGORITHMS)

    async def _decode(self, token: str, audiences: dict[str, str]) -> tuple[str, dict[str, Any]]:
        """`audiences` names the types that are taken, each with its audience; answers which it was."""
        try:
            try:
                decoded = jwt.decode(token, self._find_key, algorithms=ALGORITHMS)
            except KeyError:
                await self._reload_now_and_then()
                decoded = jwt.decode(token, self._find_key, algorithms=ALGORITHMS)
            kind = str(decoded.header.get("typ"))
            if kind not in audiences:
                raise Unauthenticated("The token is of another kind.")
            self._registry(audiences[kind]).validate(decoded.claims)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise Unauthenticated("The access token is not valid or has expired.") from error
        return kind, decoded.claims

    def _registry(self, audience: str) -> jwt.JWTClaimsRegistry:
        required: dict[str, Any] = {name: {"essential": True} for name in ("exp", "iat", "sub", "jti")}
        required["iss"] = {"essential": True, "value": ISSUER}
        required["aud"] = {"essential": True, "value": audience}
        return jwt.JWTClaimsRegistry(now=lambda: int(self._services.clock.now().timestamp()), **required)

    def _find_key(self, obj: Any) -> OKPKey:
        return self._keys[obj.headers().get("kid", "")]

    async def _reload_now_and_then(self) -> None:
        async with self._loading:
            if time.monotonic() - self._loaded_at > RELOAD_PAUSE_S:
                await self.reload()


async def consume_transaction(tx: WriteTx, claims: dict[str, Any]) -> None:
    """Ends a transaction: of two requests that bring the same one, one passes. Raises Unauthenticated."""
    await tx.execute("delete from consumed_transactions where expires_at < now()")
    first = await tx.fetchval(
        "insert into consumed_transactions (jti, expires_at) values ($1, to_timestamp($2) + interval '1 minute')"
        " on conflict do nothing returning jti",
        claims["jti"], float(claims["exp"]),
    )  # fmt: skip
    if first is None:
        raise Unauthenticated("This step was done before. Start again.")


async def add_signing_key(tx: WriteTx, seal: Seal) -> str:
    """A new key that signs from now on; the earlier ones still verify. Returns its kid."""
    key, kid = OKPKey.generate_key("Ed25519"), secrets.token_hex(8)
    private = json.dumps(key.as_dict(private=True)).encode()
    await tx.execute(
        "insert into signing_keys (kid, private_key, public_jwk, created_at) values ($1, $2, $3, clock_timestamp())",
        kid, seal.close(private, purpose=SEAL_PURPOSE), key.as_dict(private=False),
    )  # fmt: skip
    await emit(tx, Event(type="signing_key.added", object_kind="signing_key", object_id=kid))
    await announce_signing_keys(tx)
    return kid


async def retire_signing_key(tx: WriteTx, kid: str) -> None:
    """Its tokens are refused from now on. The newest key cannot be retired: nothing would be left to sign with."""
    if kid == await tx.fetchval(
        "select kid from signing_keys where retired_at is null order by created_at desc, kid desc"
    ):
        raise Conflict("This is the key that signs now. Rotate first.")
    done = await tx.fetchval(
        "update signing_keys set retired_at = now() where kid = $1 and retired_at is null returning kid", kid
    )
    if done is None:
        raise NotFound("There is no such signing key in use.")
    await emit(tx, Event(type="signing_key.retired", object_kind="signing_key", object_id=kid))
    await announce_signing_keys(tx)


async def published_keys(services: Services) -> dict[str, Any]:
    """The JWK set (RFC 7517 5): public parts only."""
    async with services.db.read(SYSTEM) as tx:
        rows = await tx.fetch("select kid, public_jwk from signing_keys where retired_at is null order by created_at")
    keys = [{**row["public_jwk"], "kid": row["kid"], "alg": ALGORITHMS[0], "use": "sig"} for row in rows]
    return {"keys": keys}


def new_secret() -> str:
    """256 random bits as text."""
    return secrets.token_urlsafe(32)


def secret_hash(secret: str) -> bytes:
    """What is stored of a secret. Enough for 256 random bits; passwords are another matter."""
    return hashlib.sha256(secret.encode()).digest()
