"""API keys: `annotomy_<handle>_<secret><checksum>`. The secret is 256 random bits, shown once and stored hashed.

The prefix and the checksum let secret scanners recognise a leaked key without asking us, and let us refuse typing errors
without asking the database. The handle names the key without opening anything. A key is narrowed by scopes, projects,
networks and an expiry; for rotation two keys live side by side until the old one is revoked.
"""

import hmac
import ipaddress
import re
import secrets
import string
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from annotomy.actor import SYSTEM, Actor
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, Conflict, Forbidden, NotFound, Unauthenticated
from annotomy.events import Event, emit
from annotomy.identity.revocation import announce
from annotomy.identity.schemas import ApiKey, IssuedApiKey
from annotomy.identity.tokens import secret_hash
from annotomy.services import Services

KEY_PREFIX = "annotomy_"
HANDLE_CHARACTERS, SECRET_CHARACTERS, CHECKSUM_CHARACTERS = 12, 43, 6  # 43 of 62 characters are 256 bits
KEY_PATTERN = re.compile(r"annotomy_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")
"""Published for secret scanners (docs/how-to/use-an-api-key.md)."""
COARSE_SCOPES = frozenset({"read", "write", "admin"})
MOST_KEYS = 100
"""Keys of one user that are alive; more are a leak of a program that issues and forgets."""
MOST_NETWORKS = 50
MOST_PROJECTS = 100
"""Of one key: each transaction tells the database all of them; who works in more has a key for all."""
USED_PAUSE_S = 60
"""`last_used_at` is written at most this often: a busy key does not cost a write for each request."""
_ALPHABET = string.digits + string.ascii_letters
_MALFORMED = "The API key is not valid, has expired or was revoked."


@dataclass(frozen=True, slots=True)
class KnownKey:
    actor: Actor
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    expires_at: datetime | None


def new_key() -> tuple[str, str]:
    """The handle and the whole key."""
    handle = "".join(secrets.choice(_ALPHABET) for _ in range(HANDLE_CHARACTERS))
    body = f"{KEY_PREFIX}{handle}_" + "".join(secrets.choice(_ALPHABET) for _ in range(SECRET_CHARACTERS))
    return handle, body + _checksum(body)


def handle_of(key: str) -> str:
    """Raises Unauthenticated for what cannot be a key of ours."""
    match = KEY_PATTERN.fullmatch(key)
    if match is None or _checksum(key[:-CHECKSUM_CHARACTERS]) != match[3]:
        raise Unauthenticated(_MALFORMED)
    return match[1]


async def issue_api_key(
    tx: WriteTx,
    *,
    user_id: UUID,
    name: str,
    project_ids: Iterable[UUID] | None,
    scopes: Iterable[str] | None,
    expires_at: datetime | None,
    addresses: Iterable[str] = (),
) -> IssuedApiKey:
    """`scopes` None is all that the user may do, `project_ids` None all projects of the user. The caller has checked the
    names of scopes and the projects."""
    networks = _networks(addresses)
    projects = None if project_ids is None else sorted(set(project_ids))
    if projects is not None and not 1 <= len(projects) <= MOST_PROJECTS:
        raise BadRequest(f"A key is bound to 1 to {MOST_PROJECTS} projects, or to none in particular.")
    alive = await tx.fetchval("select count(*) from api_keys where user_id = $1 and revoked_at is null", user_id)
    if alive >= MOST_KEYS:
        raise Conflict(f"There are {MOST_KEYS} keys already. Revoke what is not used.")
    if not 1 <= len(name) <= 200:
        raise BadRequest("A key's name has 1 to 200 characters.")
    key_id, (handle, key) = new_id(), new_key()
    narrowed = None if scopes is None else sorted(set(scopes))
    await tx.execute(
        "insert into api_keys (id, handle, user_id, name, hash, scopes, project_ids, addresses, expires_at)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        key_id, handle, user_id, name, secret_hash(key), narrowed, projects, networks, expires_at,
    )  # fmt: skip
    await emit(
        tx,
        Event(
            type="api_key.issued",
            object_kind="api_key",
            object_id=str(key_id),
            project_id=projects[0] if projects is not None and len(projects) == 1 else None,
            data={
                "handle": handle,
                "scopes": narrowed,
                "projects": None if projects is None else [*map(str, projects)],
            },
        ),
    )
    return IssuedApiKey(id=key_id, key=key)


def require_within(actor: Actor, *, project_ids: frozenset[UUID] | None, scopes: frozenset[str] | None) -> None:
    """A key that issues a key hands on no more than it has. Raises Forbidden."""
    if actor.kind != "api_key":
        return
    wider_project = actor.project_ids is not None and (project_ids is None or not project_ids <= actor.project_ids)
    wider_scope = actor.scopes is not None and (scopes is None or not scopes <= actor.scopes)
    if wider_project or wider_scope:
        raise Forbidden("A key cannot issue a key that reaches further than itself.")


async def list_api_keys(tx: ReadTx) -> list[ApiKey]:
    """One's own that are not revoked, the newest first."""
    rows = await tx.fetch(
        "select id, handle, name, scopes, project_ids, addresses::text[], created_at, expires_at, last_used_at from api_keys"
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
    await announce(tx, tx.actor.user_id)


async def find_api_key(services: Services, key: str) -> KnownKey:
    """Raises Unauthenticated with one wording for every reason. Notes the use."""
    handle = handle_of(key)
    async with services.db.read(SYSTEM) as tx:
        row = await tx.fetchrow(
            "select k.id, k.hash, k.scopes, k.project_ids, k.addresses, k.expires_at, u.id as user_id, u.username, u.is_admin,"
            " k.last_used_at is null or k.last_used_at < now() - $2 * interval '1 second' as note_use"
            " from api_keys k join users u on u.id = k.user_id where k.handle = $1 and k.revoked_at is null"
            " and (k.expires_at is null or k.expires_at > now()) and u.state = 'active'",
            handle, USED_PAUSE_S,
        )  # fmt: skip
    if row is None or not hmac.compare_digest(row["hash"], secret_hash(key)):
        raise Unauthenticated(_MALFORMED)
    if row["note_use"]:
        async with services.db.write(SYSTEM) as tx:
            await tx.execute("update api_keys set last_used_at = now() where id = $1", row["id"])
    actor = Actor(
        user_id=row["user_id"],
        name=row["username"],
        kind="api_key",
        is_admin=row["is_admin"],
        project_ids=None if row["project_ids"] is None else frozenset(row["project_ids"]),
        key_id=row["id"],
        scopes=None if row["scopes"] is None else frozenset(row["scopes"]),
    )
    return KnownKey(actor, tuple(row["addresses"]), row["expires_at"])


def may_come_from(key: KnownKey, address: str) -> bool:
    if not key.networks:
        return True
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return any((mapped or parsed) in network for network in key.networks)


def _networks(addresses: Iterable[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    given = list(addresses)
    if len(given) > MOST_NETWORKS:
        raise BadRequest(f"A key takes at most {MOST_NETWORKS} networks.")
    try:
        return [ipaddress.ip_network(address, strict=False) for address in given]
    except ValueError as error:
        raise BadRequest("Addresses are given as 192.0.2.7 or 192.0.2.0/24.") from error


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM_CHARACTERS):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
