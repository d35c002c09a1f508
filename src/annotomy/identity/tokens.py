"""Access tokens: short-lived JWTs signed with Ed25519 (RFC 8037), and the opaque refresh tokens behind them.

The signing key lies in the database, so that every process and host signs and verifies alike.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from annotomy.actor import SYSTEM
from annotomy.db.engine import Database
from annotomy.errors import Unauthenticated

ISSUER = "annotomy"
AUDIENCE = "annotomy-api"
ALGORITHMS = ["Ed25519"]
ACCESS_LIFETIME = timedelta(minutes=10)
REFRESH_LIFETIME = timedelta(days=30)
KEY_LOCK = 0x6B6579  # one process makes the first key

_claims = jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": ISSUER},
    aud={"essential": True, "value": AUDIENCE},
    exp={"essential": True},
    sub={"essential": True},
    sid={"essential": True},
)


@dataclass(frozen=True, slots=True)
class AccessClaims:
    user_id: UUID
    session_id: UUID


class TokenSigner:
    """Signs and verifies with the newest key; verifies with older ones that are not retired."""

    def __init__(self, keys: dict[str, OKPKey], newest: str) -> None:
        self._keys = keys
        self._newest = newest

    @classmethod
    async def load(cls, db: Database) -> "TokenSigner":
        """Makes the first key when there is none."""
        async with db.write(SYSTEM) as tx:
            await tx.execute("select pg_advisory_xact_lock($1)", KEY_LOCK)
            rows = await tx.fetch(
                "select kid, private_jwk from signing_keys where retired_at is null order by created_at"
            )
            known: dict[str, Any] = {row["kid"]: row["private_jwk"] for row in rows}
            if not known:
                key = OKPKey.generate_key("Ed25519")
                kid = secrets.token_hex(8)
                await tx.execute(
                    "insert into signing_keys (kid, private_jwk) values ($1, $2)", kid, key.as_dict(private=True)
                )
                known = {kid: key.as_dict(private=True)}
        return cls({kid: OKPKey.import_key(jwk) for kid, jwk in known.items()}, list(known)[-1])

    def sign(self, *, user_id: UUID, session_id: UUID, now: datetime) -> str:
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "sid": str(session_id),
            "jti": secrets.token_hex(8),
            "iat": int(now.timestamp()),
            "exp": int((now + ACCESS_LIFETIME).timestamp()),
        }
        header = {"alg": ALGORITHMS[0], "kid": self._newest, "typ": "at+jwt"}
        return jwt.encode(header, claims, self._keys[self._newest], algorithms=ALGORITHMS)

    def verify(self, token: str) -> AccessClaims:
        """Raises Unauthenticated for a token that is forged, expired, of another issuer or of another algorithm."""
        try:
            decoded = jwt.decode(token, self._find_key, algorithms=ALGORITHMS)
            if decoded.header.get("typ") != "at+jwt":
                raise Unauthenticated("The token is not an access token.")
            _claims.validate(decoded.claims)
            return AccessClaims(user_id=UUID(decoded.claims["sub"]), session_id=UUID(decoded.claims["sid"]))
        except (JoseError, ValueError, KeyError) as error:
            raise Unauthenticated("The access token is not valid or has expired.") from error

    def _find_key(self, obj: Any) -> OKPKey:
        return self._keys[obj.headers().get("kid", "")]


def new_secret() -> str:
    """256 random bits as text, for refresh tokens and API keys."""
    return secrets.token_urlsafe(32)


def secret_hash(secret: str) -> bytes:
    """What is stored of a secret. Enough for 256 random bits; passwords are another matter."""
    return hashlib.sha256(secret.encode()).digest()
