"""What an annotation was: its versions, readable by everyone who may read the annotation, after its deletion too."""

from typing import Any
from uuid import UUID

from annotomy.annotations.merge import difference
from annotomy.annotations.rights import Action
from annotomy.annotations.schemas import Change, Version, VersionEntry
from annotomy.annotations.service import stand
from annotomy.db.engine import ReadTx
from annotomy.errors import NotFound

MAX_VERSIONS = 10_000
"""Entries of one answer, without their contents."""


async def list_versions(tx: ReadTx, annotation_id: UUID) -> list[VersionEntry]:
    """The newest first."""
    await stand(tx, annotation_id, Action.READ, lock=False)
    rows = await tx.fetch(
        "select v.version, v.action, v.changed, v.why, v.created_by, u.username as author, v.created_at"
        " from annotation_versions v join users u on u.id = v.created_by where v.annotation_id = $1"
        f" order by v.version desc limit {MAX_VERSIONS}",
        annotation_id,
    )
    return [VersionEntry(**dict(row)) for row in rows]


async def get_version(tx: ReadTx, annotation_id: UUID, version: int, *, against: int | None = None) -> Version:
    """With its difference from the version before, or from `against`."""
    await stand(tx, annotation_id, Action.READ, lock=False)
    wanted = {version, version - 1 if against is None else against}
    rows: dict[int, Any] = {
        row["version"]: row
        for row in await tx.fetch(
            "select v.version, v.action, v.why, v.created_by, u.username as author, v.created_at, v.content"
            " from annotation_versions v join users u on u.id = v.created_by"
            " where v.annotation_id = $1 and v.version = any($2)",
            annotation_id, [one for one in wanted if 0 < one < 1 << 31],
        )
    }  # fmt: skip
    if version not in rows or (against is not None and against not in rows):
        raise NotFound("The annotation has no such version.")
    before = rows.get(version - 1 if against is None else against)
    changes = difference(before["content"] if before is not None else {}, rows[version]["content"])
    return Version(**dict(rows[version]), changes=[Change(**change) for change in changes])
