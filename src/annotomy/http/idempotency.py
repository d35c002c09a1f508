"""`Idempotency-Key`: a write that a client sends again is answered as the first time and done once.

The answer is kept in the transaction of the write itself, so it exists exactly when the write does. Two equal requests
under way at once take turns. Keys belong to who sent them and to one route.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from annotomy.db.engine import WriteTx
from annotomy.errors import BadRequest, Problem

T = TypeVar("T", bound=msgspec.Struct)

MAX_KEY_CHARACTERS = 255
KEPT = timedelta(hours=24)
"""Longer than any client goes on trying; after it a key is new again."""


class IdempotencyKeyReused(Problem):
    """The key was sent before with another body. Use a new key for each new request."""

    slug = "idempotency-key-reused"
    title = "This Idempotency-Key belongs to another request"
    status = 422


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """`route` names the operation; `body` is what was decoded, for telling a repetition from another request."""

    key: str | None
    route: str
    body: Any

    def fingerprint(self) -> bytes:
        return hashlib.sha256(msgspec.json.encode(self.body, order="deterministic")).digest()


async def once(tx: WriteTx, request: IdempotentRequest, kind: type[T], operation: Callable[[], Awaitable[T]]) -> T:
    """The operation's answer, or the answer that it gave when this key came first. Without a key it simply runs."""
    key = request.key
    if key is None:
        return await operation()
    if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        raise BadRequest(f"Idempotency-Key has 1 to {MAX_KEY_CHARACTERS} characters.")
    owner = tx.actor.user_id
    await tx.execute("select pg_advisory_xact_lock(hashtextextended($1, 1))", f"{owner} {request.route} {key}")
    known = await tx.fetchrow(
        "select fingerprint, body from idempotency_keys where principal_id = $1 and route = $2 and key = $3"
        " and created_at > now() - $4::interval",
        owner, request.route, key, KEPT,
    )  # fmt: skip
    if known is not None:
        if known["fingerprint"] != request.fingerprint():
            raise IdempotencyKeyReused("This key was used for a request with another body.")
        return msgspec.json.decode(known["body"], type=kind)
    answer = await operation()
    await tx.execute(
        "delete from idempotency_keys where principal_id = $1 and created_at <= now() - $2::interval", owner, KEPT
    )
    await tx.execute(
        "insert into idempotency_keys (principal_id, key, route, fingerprint, status, body) values ($1, $2, $3, $4, $5, $6)",
        owner, key, request.route, request.fingerprint(), 200, msgspec.json.encode(answer),
    )  # fmt: skip
    return answer
