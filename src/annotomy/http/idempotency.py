"""`Idempotency-Key`: a write that is sent again answers as it did the first time, and is done once.

The answer is remembered in the transaction of the write, so that both exist or neither. Keys belong to one principal and
one route. An edge asks `replay` before it prepares anything, `claim` at the start of the write transaction, and tells
`remember` at its end; `once` does all of that around one operation in one transaction.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from blake3 import blake3

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.errors import BadRequest, Problem

T = TypeVar("T", bound=msgspec.Struct)

KEPT_HOURS = 72
"""A client that has not learned its answer after a weekend begins anew."""
MAX_KEY = 255
MAX_BODY_BYTES = 4 << 20
"""Larger answers are not remembered whole; routes with such answers take no key."""
FORGOTTEN_AT_ONCE = 20
"""Expired keys that one keyed write clears: the table shrinks faster than it grows, and no write waits for it."""


class IdempotencyKeyReused(Problem):
    """The key was used for another request on this route. Make a new key for each new request; send the old one only to repeat."""

    slug = "idempotency-key-reused"
    title = "The key belongs to another request"
    status = 422


class IdempotencyKeyInFlight(Problem):
    """The first request with this key is still being answered. Wait a moment and send it again."""

    slug = "idempotency-key-in-flight"
    title = "The first request is not answered yet"
    status = 409


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Keyed:
    """One request under a key."""

    actor: Actor
    route: str
    key: str
    fingerprint: bytes

    @property
    def lock(self) -> int:
        name = f"{self.actor.user_id} {self.route} {self.key}"
        return int.from_bytes(blake3(name.encode()).digest(8), "little", signed=True)


def keyed(actor: Actor, route: str, key: str | None, body: bytes) -> Keyed | None:
    """None without a key. `route` is method and path, `body` what tells one request from another."""
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_KEY or not key.isprintable():
        raise BadRequest(f"Idempotency-Key has 1 to {MAX_KEY} printable characters.")
    return Keyed(actor, route, key, blake3(body).digest())


async def replay(tx: ReadTx, asked: Keyed | None) -> Answer | None:
    """The answer of the first time. Raises IdempotencyKeyReused when that was to another request."""
    if asked is None:
        return None
    row = await tx.fetchrow(
        "select fingerprint, status, headers, body from idempotency_keys where principal_id = $1 and route = $2 and key = $3"
        f" and created_at > now() - interval '{KEPT_HOURS} hours'",
        asked.actor.user_id, asked.route, asked.key,
    )  # fmt: skip
    if row is None:
        return None
    if row["fingerprint"] != asked.fingerprint:
        raise IdempotencyKeyReused("This Idempotency-Key was sent with another request.")
    headers: dict[str, Any] = row["headers"]
    return Answer(row["status"], row["body"], {**headers, "Idempotency-Replayed": "true"})


async def claim(tx: WriteTx, asked: Keyed | None, *, wait: bool = False) -> Answer | None:
    """Holds the key until the transaction ends. When another holds it: takes turns, or raises IdempotencyKeyInFlight."""
    if asked is None:
        return None
    if wait:
        await tx.fetchval("select pg_advisory_xact_lock($1)", asked.lock)
    elif not await tx.fetchval("select pg_try_advisory_xact_lock($1)", asked.lock):
        raise IdempotencyKeyInFlight("The first request with this Idempotency-Key is being answered.")
    return await replay(tx, asked)


async def remember(tx: WriteTx, asked: Keyed | None, answer: Answer) -> None:
    if asked is None:
        return
    assert len(answer.body) <= MAX_BODY_BYTES, "routes with large answers take no key"
    await tx.execute(
        f"delete from idempotency_keys where ctid = any(array(select ctid from idempotency_keys"
        f" where created_at < now() - interval '{KEPT_HOURS} hours' order by created_at limit {FORGOTTEN_AT_ONCE}"
        " for update skip locked))"
    )
    await tx.execute(
        "insert into idempotency_keys (principal_id, route, key, fingerprint, status, headers, body)"
        " values ($1, $2, $3, $4, $5, $6, $7) on conflict (principal_id, route, key) do update set"
        " fingerprint = excluded.fingerprint, status = excluded.status, headers = excluded.headers, body = excluded.body,"
        " created_at = now()",
        asked.actor.user_id, asked.route, asked.key, asked.fingerprint, answer.status, answer.headers, answer.body,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """`route` names the operation; `body` is what was decoded, for telling a repetition from another request."""

    key: str | None
    route: str
    body: Any


async def once(tx: WriteTx, request: IdempotentRequest, kind: type[T], operation: Callable[[], Awaitable[T]]) -> T:
    """The operation's answer, or the answer that it gave when this key came first. Without a key it simply runs.

    Two equal requests under way at once take turns: for operations of one short transaction.
    """
    asked = keyed(tx.actor, request.route, request.key, msgspec.json.encode(request.body, order="deterministic"))
    known = await claim(tx, asked, wait=True)
    if known is not None:
        return msgspec.json.decode(known.body, type=kind)
    answer = await operation()
    await remember(tx, asked, Answer(200, msgspec.json.encode(answer), {}))
    return answer
