"""From a credential to an actor: access tokens and API keys in `Authorization: Bearer`.

A result is remembered for a few seconds, so that a revocation takes effect everywhere within that time and a busy
client does not cost one more database read for each request.
"""

import time
from collections import OrderedDict

from annotomy.actor import SYSTEM, Actor
from annotomy.errors import Unauthenticated
from annotomy.identity.api_keys import PREFIX
from annotomy.identity.tokens import TokenSigner, secret_hash
from annotomy.services import Services

MEMORY_S = 5.0
MEMORY_SIZE = 10_000


class Authenticator:
    """One for each process."""

    def __init__(self, services: Services, signer: TokenSigner) -> None:
        self._services = services
        self._signer = signer
        self._known: OrderedDict[bytes, tuple[float, Actor]] = OrderedDict()

    async def from_header(self, authorization: str | None) -> Actor:
        if not authorization:
            raise Unauthenticated("Send `Authorization: Bearer` with an access token or an API key.")
        scheme, _, credential = authorization.partition(" ")
        if scheme.lower() != "bearer" or not credential:
            raise Unauthenticated("The Authorization header takes the scheme Bearer.")
        return await self.from_credential(credential.strip())

    async def from_credential(self, credential: str) -> Actor:
        digest = secret_hash(credential)
        now = time.monotonic()
        known = self._known.get(digest)
        if known is not None and known[0] > now:
            return known[1]
        if credential.startswith(PREFIX):
            actor = await self._from_api_key(digest)
        else:
            actor = await self._from_access_token(credential)
        self._known[digest] = (now + MEMORY_S, actor)
        if len(self._known) > MEMORY_SIZE:
            self._known.popitem(last=False)
        return actor

    async def _from_access_token(self, token: str) -> Actor:
        claims = self._signer.verify(token)
        async with self._services.db.read(SYSTEM) as tx:
            row = await tx.fetchrow(
                "select u.id, u.username, u.is_admin from users u join sessions s on s.user_id = u.id"
                " where u.id = $1 and s.id = $2 and u.state = 'active' and s.revoked_at is null and s.expires_at > now()",
                claims.user_id, claims.session_id,
            )  # fmt: skip
        if row is None:
            raise Unauthenticated("The session has ended. Sign in again.")
        return Actor(user_id=row["id"], name=row["username"], is_admin=row["is_admin"], session_id=claims.session_id)

    async def _from_api_key(self, digest: bytes) -> Actor:
        async with self._services.db.write(SYSTEM) as tx:
            row = await tx.fetchrow(
                "update api_keys k set last_used_at = now() from users u where k.hash = $1 and u.id = k.user_id"
                " and k.revoked_at is null and (k.expires_at is null or k.expires_at > now()) and u.state = 'active'"
                " returning u.id, u.username, u.is_admin, k.project_id",
                digest,
            )
        if row is None:
            raise Unauthenticated("The API key is not valid, has expired or was revoked.")
        return Actor(
            user_id=row["id"],
            name=row["username"],
            kind="api_key",
            is_admin=row["is_admin"],
            project_id=row["project_id"],
        )
