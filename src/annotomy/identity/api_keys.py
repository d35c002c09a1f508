"""API keys: 256 random bits under a name, shown once, stored hashed, optionally bound to one project."""

from datetime import datetime
from uuid import UUID

from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import NotFound
from annotomy.events import Event, emit
from annotomy.identity.schemas import ApiKey, IssuedApiKey
from annotomy.identity.tokens import new_secret, secret_hash

PREFIX = "annotomy_"
"""Lets secret scanners find a leaked key."""


async def issue_api_key(
    tx: WriteTx, *, user_id: UUID, name: str, project_id: UUID | None, scopes: list[str], expires_at: datetime | None
) -> IssuedApiKey:
    key_id, key = new_id(), PREFIX + new_secret()
    await tx.execute(
        "insert into api_keys (id, user_id, name, hash, scopes, project_id, expires_at) values ($1, $2, $3, $4, $5, $6, $7)",
        key_id, user_id, name, secret_hash(key), scopes, project_id, expires_at,
    )  # fmt: skip
    await emit(tx, Event(type="api_key.issued", object_kind="api_key", object_id=str(key_id), project_id=project_id))
    return IssuedApiKey(id=key_id, key=key)


async def list_api_keys(tx: ReadTx) -> list[ApiKey]:
    rows = await tx.fetch(
        "select id, name, project_id, created_at, expires_at, last_used_at from api_keys"
        " where user_id = $1 and revoked_at is null order by created_at desc limit 1000",
        tx.actor.user_id,
    )
    return [ApiKey(**dict(row)) for row in rows]


async def revoke_api_key(tx: WriteTx, key_id: UUID) -> None:
    done = await tx.fetchval(
        "update api_keys set revoked_at = now() where id = $1 and user_id = $2 and revoked_at is null returning id",
        key_id, tx.actor.user_id,
    )  # fmt: skip
    if done is None:
        raise NotFound("There is no such API key of yours.")
    await emit(tx, Event(type="api_key.revoked", object_kind="api_key", object_id=str(key_id)))
