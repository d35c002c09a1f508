"""Which remotes there are, and which projects each is open to. Administrators decide; secrets are sealed at rest.

A secret goes only where it was given for: who changes the address gives it again.
"""

from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, NotFound, PreconditionFailed
from annotomy.events import Event, emit
from annotomy.identity.seal import Seal
from annotomy.projects.access import Permission, require, require_global, visible_studies
from annotomy.remotes.addresses import SECRETS, DicomwebAddress, DimseAddress
from annotomy.remotes.errors import RemoteExists
from annotomy.remotes.remote_archive import Remote
from annotomy.remotes.schemas import NewRemote, OpenRemote, RemoteAnswer

PURPOSE = "remote"
MAX_REMOTES = 1000
_NOT_THERE = "There is no such remote."
_COLUMNS = (
    "r.id, r.name, r.kind, r.address, r.secrets, r.created_at, r.updated_at, r.version,"
    " array(select project_id from remote_projects p where p.remote_id = r.id order by 1) as project_ids"
)
_TYPES: dict[str, Any] = {"dicomweb": DicomwebAddress, "dimse": DimseAddress}
Address = DicomwebAddress | DimseAddress


async def list_remotes(tx: ReadTx) -> list[RemoteAnswer]:
    await require_global(tx, tx.actor, Permission.SYSTEM_MANAGE)
    return [_answer(row) for row in await tx.fetch(f"select {_COLUMNS} from remotes r order by r.name")]


async def get_remote(tx: ReadTx, remote_id: UUID) -> RemoteAnswer:
    await require_global(tx, tx.actor, Permission.SYSTEM_MANAGE)
    return _answer(await _row(tx, remote_id))


async def create_remote(tx: WriteTx, seal: Seal, new: NewRemote) -> RemoteAnswer:
    await require_global(tx, tx.actor, Permission.SYSTEM_MANAGE)
    public, secrets = _parted(_address(new))
    if await tx.fetchval("select count(*) from remotes") >= MAX_REMOTES:
        raise BadRequest(f"There are {MAX_REMOTES} remotes at most.")
    remote_id = new_id()
    try:
        await tx.execute(
            "insert into remotes (id, name, kind, address, secrets, created_by) values ($1, $2, $3, $4, $5, $6)",
            remote_id, new.name.strip(), new.kind, public, _sealed(seal, secrets), tx.actor.user_id,
        )  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        raise RemoteExists("There is a remote of this name already.") from error
    await _open_to(tx, remote_id, new.project_ids or [])
    return await _changed(tx, remote_id, "remote.created")


async def change_remote(tx: WriteTx, seal: Seal, remote_id: UUID, new: NewRemote, expected: int) -> RemoteAnswer:
    """Secrets that are left out stay, unless the remote is to be found elsewhere now."""
    await require_global(tx, tx.actor, Permission.SYSTEM_MANAGE)
    before = await _row(tx, remote_id, lock=True)
    if before["version"] != expected:
        raise PreconditionFailed("The remote was changed meanwhile.", current_version=before["version"])
    address = _address(new)
    if before["secrets"] is not None and before["kind"] == new.kind:
        known = _address_of(before, seal)
        if _place(known) == _place(address):
            kept = {
                name: getattr(known, name) for name in SECRETS if hasattr(known, name) and not getattr(address, name)
            }
            address = msgspec.structs.replace(address, **kept)
    public, secrets = _parted(address)
    try:
        await tx.execute(
            "update remotes set name = $2, kind = $3, address = $4, secrets = $5, version = version + 1, updated_at = now()"
            " where id = $1",
            remote_id, new.name.strip(), new.kind, public, _sealed(seal, secrets),
        )  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        raise RemoteExists("There is a remote of this name already.") from error
    if new.project_ids is not None:
        await tx.execute("delete from remote_projects where remote_id = $1", remote_id)
        await _open_to(tx, remote_id, new.project_ids)
    return await _changed(tx, remote_id, "remote.changed")


async def delete_remote(tx: WriteTx, remote_id: UUID) -> None:
    """With what is known of it. What was brought in stays; what waits to be sent is sent no more."""
    await require_global(tx, tx.actor, Permission.SYSTEM_MANAGE)
    if await tx.fetchval("delete from remotes where id = $1 returning 1", remote_id) is None:
        raise NotFound(_NOT_THERE)
    await emit(tx, Event(type="remote.deleted", object_kind="remote", object_id=str(remote_id)))


async def remotes_of_project(tx: ReadTx, project_id: UUID) -> list[OpenRemote]:
    await require(tx, tx.actor, Permission.REMOTE_QUERY, project_id)
    rows = await tx.fetch(
        "select r.id, r.name, r.kind from remotes r join remote_projects p on p.remote_id = r.id"
        " where p.project_id = $1 order by r.name",
        project_id,
    )
    return [OpenRemote(**dict(row)) for row in rows]


async def require_open(tx: ReadTx, actor: Actor, permission: Permission, remote_id: UUID, project_id: UUID) -> None:
    """That the actor may use the remote so in the project. Raises NotFound, also for a remote that is not open to it, else Forbidden."""
    await require(tx, actor, permission, project_id)
    known = await tx.fetchval(
        "select 1 from remote_projects where remote_id = $1 and project_id = $2", remote_id, project_id
    )
    if known is None:
        raise NotFound(_NOT_THERE)


async def open_remote(tx: ReadTx, seal: Seal, remote_id: UUID) -> Remote:
    """For the one who talks to it; the caller decided the right. Raises NotFound."""
    row = await _row(tx, remote_id)
    return Remote(row["id"], row["name"], row["kind"], _address_of(row, seal))


async def _row(tx: ReadTx, remote_id: UUID, *, lock: bool = False) -> Any:
    row = await tx.fetchrow(
        f"select {_COLUMNS} from remotes r where r.id = $1{' for update' if lock else ''}", remote_id
    )
    if row is None:
        raise NotFound(_NOT_THERE)
    return row


async def _open_to(tx: WriteTx, remote_id: UUID, project_ids: list[UUID]) -> None:
    known = {
        row["id"] for row in await tx.fetch("select id from projects where id = any($1)", sorted(set(project_ids)))
    }
    if known != set(project_ids):
        raise BadRequest("One of the projects does not exist.")
    await tx.executemany(
        "insert into remote_projects (remote_id, project_id) values ($1, $2)",
        [(remote_id, project_id) for project_id in sorted(known)],
    )


async def _changed(tx: WriteTx, remote_id: UUID, event_type: str) -> RemoteAnswer:
    answer = _answer(await _row(tx, remote_id))
    data = {"kind": answer.kind, "version": answer.version, "project_ids": [str(one) for one in answer.project_ids]}
    await emit(tx, Event(type=event_type, object_kind="remote", object_id=str(remote_id), data=data))
    return answer


def _answer(row: Any) -> RemoteAnswer:
    address = msgspec.convert(row["address"], _TYPES[row["kind"]])
    return RemoteAnswer(
        id=row["id"],
        name=row["name"],
        kind=row["kind"],
        dicomweb=address if row["kind"] == "dicomweb" else None,
        dimse=address if row["kind"] == "dimse" else None,
        has_secrets=row["secrets"] is not None,
        project_ids=row["project_ids"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        version=row["version"],
    )


# -- addresses --------------------------------------------------------------------------------------------------------


def _address(new: NewRemote) -> Address:
    """What the remote is reached by, checked as far as can be without calling it. Raises BadRequest."""
    given = {"dicomweb": new.dicomweb, "dimse": new.dimse}
    address = given.pop(new.kind)
    if address is None or any(one is not None for one in given.values()):
        raise BadRequest(f"A remote of the kind {new.kind} takes the member `{new.kind}`, and no other.")
    if isinstance(address, DicomwebAddress):
        try:
            url = httpx.URL(address.url)
        except httpx.InvalidURL as error:
            raise BadRequest("The URL cannot be read.") from error
        if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
            raise BadRequest("The URL is http or https, without user, query or fragment.")
        _require_sendable(address)
    return address


def _require_sendable(address: DicomwebAddress) -> None:
    wanted = {"basic": "username", "certificate": "certificate"}.get(address.auth)
    if wanted is not None and not getattr(address, wanted):
        raise BadRequest(f"The authentication {address.auth} needs `{wanted}`.")
    if any(ord(one) < 32 or ord(one) == 127 for one in address.token + address.username + address.password):
        raise BadRequest("A user name, password or token has no control characters.")


def _place(address: Address) -> tuple[Any, ...]:
    if isinstance(address, DicomwebAddress):
        url = httpx.URL(address.url)
        return url.scheme, url.host, url.port
    return address.host, address.port, address.tls


def _parted(address: Address) -> tuple[dict[str, Any], dict[str, str]]:
    """The part that is shown, and the secrets."""
    public: dict[str, Any] = msgspec.to_builtins(address)
    return public, {name: public.pop(name) for name in SECRETS if name in public}


def _sealed(seal: Seal, secrets: dict[str, str]) -> bytes | None:
    return seal.close(msgspec.json.encode(secrets), purpose=PURPOSE) if secrets else None


def _address_of(row: Any, seal: Seal) -> Address:
    secrets: dict[str, str] = {}
    if row["secrets"] is not None:
        secrets = msgspec.json.decode(seal.open(row["secrets"], purpose=PURPOSE), type=dict[str, str])
    return msgspec.convert(row["address"] | secrets, _TYPES[row["kind"]])


def asked_or_seen(row: str) -> str:
    """Of retrievals and pushes: one's own, and those of studies that one sees in their project."""
    return (
        f"({row}.created_by = (select nullif(current_setting('app.actor', true), '')::uuid) or exists (select from studies st"
        f" where st.study_instance_uid = {row}.study_instance_uid"
        f" and {visible_studies('st.id', project=f'{row}.project_id')}))"
    )
