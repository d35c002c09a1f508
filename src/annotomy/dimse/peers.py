"""DICOM peers: which AE title may call from where, as whom it acts, and where it listens (PS3.15 B for what is around it)."""

import ipaddress
import re
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.dimse.errors import PeerExists
from annotomy.errors import BadRequest, NotFound
from annotomy.events import Event, emit
from annotomy.identity.first_start import DIMSE_USERNAME
from annotomy.identity.users import create_user
from annotomy.projects.access import Permission, require
from annotomy.projects.members import add_service_member

AE_TITLE = re.compile(r"^[ -\[\]-~]{1,16}$")
"""PS3.5 6.2 AE: 16 characters of the basic repertoire without backslash."""
_COLUMNS = "ae_title, network, user_id, project_id, may_store, may_query, may_retrieve, purpose, host, port"


@dataclass(frozen=True, slots=True)
class Peer:
    """A calling AE as the listener sees it."""

    ae_title: str
    actor: Actor
    may_store: bool = True
    may_query: bool = True
    may_retrieve: bool = True
    purpose: str = ""
    """The reason of what it retrieves in bulk."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a peer listens."""

    ae_title: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class NewPeer:
    ae_title: str
    username: str | None = None
    """None: a service user of its own, which no other peer shares."""
    network: str | None = None
    project_id: UUID | None = None
    may_store: bool = True
    may_query: bool = True
    may_retrieve: bool = True
    purpose: str = ""
    host: str | None = None
    port: int | None = None


async def find_peer(tx: ReadTx, ae_title: str, address: str | None) -> Peer | None:
    """The peer of this title that calls from there (None: wherever) and whose principal is active; None refuses it."""
    row = await tx.fetchrow(
        "select p.user_id, u.username, u.is_admin, p.project_id, p.may_store, p.may_query, p.may_retrieve, p.purpose"
        " from dimse_peers p join users u on u.id = p.user_id"
        " where p.ae_title = $1 and u.state = 'active' and ($2::text is null or p.network is null or p.network >>= $2::text::inet)",
        ae_title, address,
    )  # fmt: skip
    if row is None:
        return None
    actor = Actor(
        user_id=row["user_id"],
        name=f"{ae_title} ({row['username']})",
        kind="aet",
        project_ids=None if row["project_id"] is None else frozenset({row["project_id"]}),
    )
    return Peer(ae_title, actor, row["may_store"], row["may_query"], row["may_retrieve"], row["purpose"])


async def open_peer(tx: ReadTx, ae_title: str) -> Peer | None:
    """Anyone, in open mode: the service user of DICOM peers."""
    user_id = await tx.fetchval("select id from users where username = $1 and state = 'active'", DIMSE_USERNAME)
    if user_id is None:
        return None
    return Peer(ae_title, Actor(user_id=user_id, name=DIMSE_USERNAME, kind="aet"))


async def find_destination(tx: ReadTx, ae_title: str) -> Destination | None:
    row = await tx.fetchrow("select host, port from dimse_peers where ae_title = $1 and host is not null", ae_title)
    return None if row is None else Destination(ae_title, row["host"], row["port"])


async def add_peer(tx: WriteTx, new: NewPeer) -> None:
    """For an administrator at the command line. Raises BadRequest, NotFound, PeerExists, Forbidden."""
    if not AE_TITLE.match(new.ae_title) or not new.ae_title.strip():
        raise BadRequest("An AE title has 1 to 16 characters, none of them a backslash.")
    try:
        network = None if new.network is None else ipaddress.ip_network(new.network)
    except ValueError as error:
        raise BadRequest("The address takes an IP address or a network such as 10.1.0.0/16.") from error
    user_id, is_service = await _principal(tx, new)
    if new.project_id is not None:
        if is_service and await tx.fetchval("select 1 from projects where id = $1", new.project_id):
            # Nobody but this command can know a service user's id, and without the role it could store nothing.
            await add_service_member(tx, new.project_id, user_id, "data_manager")
        permission = Permission.STUDY_STORE if new.may_store else Permission.STUDY_READ
        await require(tx, Actor(user_id=user_id, name="", kind="aet"), permission, new.project_id)
    try:
        await tx.execute(
            f"insert into dimse_peers (id, {_COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            new_id(), new.ae_title.strip(), network, user_id, new.project_id,
            new.may_store, new.may_query, new.may_retrieve, new.purpose.strip(), new.host, new.port,
        )  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        raise PeerExists("There is a peer of this AE title already.") from error
    await emit(
        tx, Event(type="dimse_peer.added", object_kind="dimse_peer", object_id=new.ae_title, project_id=new.project_id)
    )


async def remove_peer(tx: WriteTx, ae_title: str) -> None:
    """Its principal and what it stored stay."""
    if await tx.fetchval("delete from dimse_peers where ae_title = $1 returning id", ae_title.strip()) is None:
        raise NotFound("There is no peer of this AE title.")
    await emit(tx, Event(type="dimse_peer.removed", object_kind="dimse_peer", object_id=ae_title))


async def list_peers(tx: ReadTx) -> list[dict[str, object]]:
    rows = await tx.fetch(
        "select p.ae_title, p.network, u.username, p.project_id, p.may_store, p.may_query, p.may_retrieve, p.purpose, p.host, p.port"
        " from dimse_peers p join users u on u.id = p.user_id order by p.ae_title"
    )
    return [dict(row) for row in rows]


async def _principal(tx: WriteTx, new: NewPeer) -> tuple[UUID, bool]:
    if new.username is not None:
        row = await tx.fetchrow(
            "select id, is_service from users where lower(username) = lower($1) and state = 'active'", new.username
        )
        if row is None:
            raise NotFound("There is no active user of this name.")
        return row["id"], row["is_service"]
    username = "aet-" + re.sub(r"[^\w.@+-]", "_", new.ae_title.strip())
    known = await tx.fetchval("select id from users where lower(username) = lower($1) and is_service", username)
    if known is not None:
        return known, True
    user = await create_user(
        tx, username=username, password_hash=None, display_name=f"DICOM {new.ae_title.strip()}", is_service=True
    )
    return user.id, True
