"""Study manifests: the client says first what it has; the server answers what it lacks, and when it lacks nothing.

A manifest is complete when every file of it has come to its end - stored, known already, or refused with a reason - and
never because some time has passed. What is known already is not asked for again: by BLAKE3 when the actor can see an
instance of that content (so that nobody learns what others have), by SHA-256 when it came by a manifest of the project.
"""

import re
from collections.abc import Iterable
from typing import Any, Literal
from uuid import UUID

import msgspec

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, NotFound
from annotomy.events import Event, emit
from annotomy.projects.access import key_reaches, takeable_instances, visible_instances
from annotomy.projects.service import bring_instances, project_for_store
from annotomy.uploads.errors import ManifestTooLong

MAX_FILES = 100_000
"""Files of one manifest: a day of a busy scanner, and still one request body."""
MAX_PATH_CHARACTERS = 1024
_HASH = re.compile(r"^[0-9a-f]{64}$")


class ManifestFile(msgspec.Struct, frozen=True):
    """`path` is a label of the client's; one of the two hashes, of the whole file, in hex."""

    path: str
    size: int
    blake3: str | None = None
    sha256: str | None = None


class Manifest(msgspec.Struct, frozen=True):
    id: UUID
    project_id: UUID
    state: Literal["incomplete", "complete"]
    missing: list[str]
    """Paths that are still to be sent."""
    counts: dict[str, int]
    """Files by state: missing, stored, already, refused."""
    study_instance_uids: list[str]


class ManifestFileState(msgspec.Struct, frozen=True):
    path: str
    state: str
    study_instance_uid: str | None
    sop_instance_uid: str | None
    problem: dict[str, Any] | None


async def create_manifest(tx: WriteTx, actor: Actor, project_id: UUID | None, files: list[ManifestFile]) -> Manifest:
    """Raises ManifestTooLong, BadRequest, and NotFound or Forbidden when the actor may not store in the project."""
    _check(files)
    project = await project_for_store(tx, actor, project_id)
    manifest_id = new_id()
    await tx.execute(
        "insert into study_manifests (id, owner_id, project_id) values ($1, $2, $3)",
        manifest_id, actor.user_id, project,
    )  # fmt: skip
    await tx.execute(
        "insert into study_manifest_files (manifest_id, ordinal, path, size, blake3, sha256)"
        " select $1, n, path, size, blake3, sha256 from unnest($2::text[], $3::bigint[], $4::text[], $5::text[])"
        " with ordinality as f (path, size, blake3, sha256, n)",
        manifest_id, [f.path for f in files], [f.size for f in files], [f.blake3 for f in files], [f.sha256 for f in files],
    )  # fmt: skip
    await _mark_known(tx, manifest_id, project)
    await emit(
        tx,
        Event(
            type="manifest.created", object_kind="manifest", object_id=str(manifest_id), project_id=project,
            data={"files": len(files)},
        ),
    )  # fmt: skip
    return await get_manifest(tx, manifest_id)


async def get_manifest(tx: ReadTx, manifest_id: UUID) -> Manifest:
    """Raises NotFound unless the manifest is the actor's own."""
    project_id = await project_of_manifest(tx, manifest_id)
    rows = await tx.fetch(
        "select state, count(*) as n from study_manifest_files where manifest_id = $1 group by state", manifest_id
    )
    missing = await tx.fetch(
        "select path from study_manifest_files where manifest_id = $1 and state = 'missing' order by ordinal",
        manifest_id,
    )
    studies = await tx.fetch(
        "select distinct study_instance_uid as uid from study_manifest_files where manifest_id = $1"
        " and study_instance_uid is not null order by 1",
        manifest_id,
    )
    return Manifest(
        id=manifest_id,
        project_id=project_id,
        state="incomplete" if missing else "complete",
        missing=[row["path"] for row in missing],
        counts={"missing": 0, "stored": 0, "already": 0, "refused": 0} | {row["state"]: row["n"] for row in rows},
        study_instance_uids=[row["uid"] for row in studies],
    )


async def project_of_manifest(tx: ReadTx, manifest_id: UUID) -> UUID:
    """Raises NotFound unless the manifest is the actor's own."""
    project_id = await tx.fetchval(
        f"select project_id from study_manifests where id = $1 and owner_id = $2 and {key_reaches('project_id')}",
        manifest_id, tx.actor.user_id,
    )  # fmt: skip
    if project_id is None:
        raise NotFound("There is no such manifest of yours.")
    return project_id


async def list_files(tx: ReadTx, manifest_id: UUID, *, after: int, limit: int) -> list[tuple[int, ManifestFileState]]:
    """With their ordinals, which are the positions of the list."""
    await project_of_manifest(tx, manifest_id)
    rows = await tx.fetch(
        "select ordinal, path, state, study_instance_uid, sop_instance_uid, problem from study_manifest_files"
        " where manifest_id = $1 and ordinal > $2 order by ordinal limit $3",
        manifest_id, after, limit,
    )  # fmt: skip
    return [
        (row["ordinal"], ManifestFileState(**{key: value for key, value in row.items() if key != "ordinal"}))
        for row in rows
    ]


class Announced(msgspec.Struct, frozen=True):
    """What a manifest says of one file."""

    size: int
    blake3: str | None
    sha256: str | None


async def announced_files(tx: ReadTx, manifest_id: UUID) -> dict[str, Announced]:
    rows = await tx.fetch(
        "select path, size, blake3, sha256 from study_manifest_files where manifest_id = $1", manifest_id
    )
    return {row["path"]: Announced(row["size"], row["blake3"], row["sha256"]) for row in rows}


EndState = Literal["stored", "already", "used", "refused"]
"""`used`: no image of its own, but other files could not be read without it."""


class Ended(msgspec.Struct, frozen=True):
    """What became of one file of a manifest."""

    path: str
    state: EndState
    study_instance_uid: str | None
    sop_instance_uid: str | None
    problem: dict[str, Any] | None
    instance_id: int | None


async def book_files(tx: WriteTx, manifest_id: UUID, ended: Iterable[Ended]) -> None:
    """Books the outcomes in the transaction of the upload that brought the files. What is stored stays stored."""
    await tx.executemany(
        "update study_manifest_files set state = $3, study_instance_uid = $4, sop_instance_uid = $5, problem = $6,"
        " instance_id = $7"
        " where manifest_id = $1 and path = $2 and state in ('missing', 'refused')",
        [
            (
                manifest_id,
                one.path,
                one.state,
                one.study_instance_uid,
                one.sop_instance_uid,
                one.problem,
                one.instance_id,
            )
            for one in ended
        ],
    )
    project_id, open_files = await tx.fetchrow(
        "select m.project_id, (select count(*) from study_manifest_files f where f.manifest_id = m.id and f.state = 'missing')"
        " from study_manifests m where m.id = $1 for update",
        manifest_id,
    ) or (None, 1)
    if open_files == 0:
        await emit(
            tx,
            Event(type="manifest.completed", object_kind="manifest", object_id=str(manifest_id), project_id=project_id),
        )


async def _mark_known(tx: WriteTx, manifest_id: UUID, project_id: UUID) -> None:
    """Content that the actor may bring along counts as sent, and joins the project as if it had been stored again."""
    rows = await tx.fetch(
        "update study_manifest_files f set state = 'already', study_instance_uid = st.study_instance_uid,"
        " sop_instance_uid = i.sop_instance_uid, instance_id = i.id from instances i join studies st on st.id = i.study_id"
        " where f.manifest_id = $1 and f.blake3 is not null and i.id = (select min(k.id) from instances k"
        f" where k.blob_address = f.blake3 and k.blob_size = f.size and {takeable_instances('k', '$2')})"
        " returning i.study_id, i.sop_instance_uid",
        manifest_id, project_id,
    )  # fmt: skip
    for study_id in sorted({row["study_id"] for row in rows}):
        sop_instance_uids = [row["sop_instance_uid"] for row in rows if row["study_id"] == study_id]
        await bring_instances(tx, project_id, study_id, sop_instance_uids)
    await tx.execute(
        "update study_manifest_files f set state = 'already', study_instance_uid = k.study_instance_uid,"
        " sop_instance_uid = k.sop_instance_uid, instance_id = k.instance_id"
        " from study_manifest_files k join study_manifests m on m.id = k.manifest_id join instances i on i.id = k.instance_id"
        " where f.manifest_id = $1 and f.state = 'missing' and f.sha256 is not null and k.sha256 = f.sha256"
        " and k.size = f.size and k.state in ('stored', 'already') and m.project_id = $2"
        f" and {visible_instances('i', project='$2')}",
        manifest_id, project_id,
    )  # fmt: skip


def _check(files: list[ManifestFile]) -> None:
    if len(files) > MAX_FILES:
        raise ManifestTooLong(f"A manifest names at most {MAX_FILES} files.")
    if not files:
        raise BadRequest("A manifest names at least one file.")
    for number, file in enumerate(files):
        if not 1 <= len(file.path) <= MAX_PATH_CHARACTERS or "\0" in file.path or file.size < 0:
            raise BadRequest(f"File {number} of the manifest has no usable path or size.")
        given = [text for text in (file.blake3, file.sha256) if text is not None]
        if len(given) != 1 or not _HASH.match(given[0]):
            raise BadRequest(f"File {number} of the manifest needs one hash, blake3 or sha256, in lower-case hex.")
    if len({file.path for file in files}) != len(files):
        raise BadRequest("The manifest names a path twice.")
