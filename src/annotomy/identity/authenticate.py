"""From a credential to an actor: access tokens, those of share links and API keys in `Authorization: Bearer`.

Each request checks that the session, the key and the account still stand. The answer is remembered for less than five
seconds and forgotten at once when a change is announced (revocation.py), so a busy client costs no database read for
each request and a revocation takes effect everywhere within that time.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from annotomy.actor import SYSTEM, Actor
from annotomy.errors import Unauthenticated
from annotomy.identity.api_keys import KEY_PREFIX, KnownKey, find_api_key, may_come_from
from annotomy.identity.revocation import SIGNING_KEYS, listen
from annotomy.identity.tokens import AccessClaims, ShareClaims, TokenSigner, secret_hash
from annotomy.services import Services

MEMORY_S = 4.0
"""Revocations hold within 5 s even where no announcement arrives; the rest is for the read itself."""
MEMORY_SIZE = 10_000


@dataclass(slots=True)
class _Remembered:
    actor: Actor
    until: float
    """Monotonic seconds, counted from before the read."""
    claims: AccessClaims | ShareClaims | None = None
    """Of a token whose signature was verified; checked once."""
    key: KnownKey | None = None


ShareActor = Callable[[Services, UUID], Awaitable[Actor]]
"""Who comes by a share link of this id; the links are the projects' business."""


class Authenticator:
    """One for each process. `listening()` runs beside the application. Without `share_actor` share links are not taken."""

    def __init__(self, services: Services, signer: TokenSigner, share_actor: ShareActor | None = None) -> None:
        self._services = services
        self._signer = signer
        self._share_actor = share_actor
        self._known: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._changes = 0
        """Counts announcements: an answer that was read before one is not remembered."""
        self._reloading: set[asyncio.Task[None]] = set()

    async def listening(self) -> None:
        try:
            await listen(self._services.db.url, heard=self._heard, missed=self._forget_all)
        finally:
            for task in self._reloading:
                task.cancel()
            await asyncio.gather(*self._reloading, return_exceptions=True)

    async def from_header(self, authorization: str | None, address: str = "") -> Actor:
        if not authorization:
            raise Unauthenticated("Send `Authorization: Bearer` with an access token or an API key.")
        scheme, _, credential = authorization.partition(" ")
        if scheme.lower() != "bearer" or not credential:
            raise Unauthenticated("The Authorization header takes the scheme Bearer.")
        return await self.from_credential(credential.strip(), address)

    async def from_credential(self, credential: str, address: str = "") -> Actor:
        """`address` is where the request comes from, for keys that are bound to networks."""
        digest = secret_hash(credential)
        known = self._known.get(digest)
        if known is None or known.until <= time.monotonic():
            known = await self._look_up(credential, digest, known)
        if known.claims is not None and known.claims.expires_at <= self._services.clock.now().timestamp():
            raise Unauthenticated("The access token has expired.")
        if known.key is not None:
            if not may_come_from(known.key, address):
                raise Unauthenticated("The API key is not valid from this address.")
            if known.key.expires_at is not None and known.key.expires_at <= self._services.clock.now():
                raise Unauthenticated("The API key has expired.")
        return known.actor

    async def _look_up(self, credential: str, digest: bytes, stale: _Remembered | None) -> _Remembered:
        changes, until = self._changes, time.monotonic() + MEMORY_S
        if credential.startswith(KEY_PREFIX):
            key = await find_api_key(self._services, credential)
            fresh = _Remembered(key.actor, until, key=key)
        else:
            claims = stale.claims if stale and stale.claims else await self._signer.verify(credential)
            fresh = _Remembered(await self._token_actor(claims), until, claims=claims)
        if changes == self._changes:
            self._known[digest] = fresh
            if len(self._known) > MEMORY_SIZE:
                self._known.popitem(last=False)
        return fresh

    async def _token_actor(self, claims: AccessClaims | ShareClaims) -> Actor:
        if isinstance(claims, AccessClaims):
            return await self._session_actor(claims)
        if self._share_actor is None:
            raise Unauthenticated("Share links are not taken here.")
        return await self._share_actor(self._services, claims.link_id)

    async def _session_actor(self, claims: AccessClaims) -> Actor:
        async with self._services.db.read(SYSTEM) as tx:
            row = await tx.fetchrow(
                "select u.id, u.username, u.is_admin from users u join sessions s on s.user_id = u.id"
                " where u.id = $1 and s.id = $2 and u.state = 'active' and s.revoked_at is null and s.expires_at > now()"
                " and s.last_used_at > now() - $3 * interval '1 minute'",
                claims.user_id, claims.session_id, self._services.settings.identity.session_idle_minutes,
            )  # fmt: skip
        if row is None:
            raise Unauthenticated("The session has ended. Sign in again.")
        return Actor(user_id=row["id"], name=row["username"], is_admin=row["is_admin"], session_id=claims.session_id)

    def _heard(self, subject: str) -> None:
        self._changes += 1
        if subject == SIGNING_KEYS:
            self._forget_all()
            return
        with suppress(ValueError):
            user_id = UUID(subject)
            for digest in [digest for digest, one in self._known.items() if one.actor.user_id == user_id]:
                del self._known[digest]

    def _forget_all(self) -> None:
        """Whatever was missed, the keys included, is read again."""
        self._changes += 1
        self._known.clear()
        task = asyncio.get_running_loop().create_task(self._reload_keys())
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    async def _reload_keys(self) -> None:
        with suppress(
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError
        ):  # the database is away: unknown keys are looked for when they are met
            await self._signer.reload()
            # Signatures that were verified with the former keys, this moment still, count no more.
            self._changes += 1
            self._known.clear()
