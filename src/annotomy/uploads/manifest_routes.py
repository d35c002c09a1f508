"""/api/v1/study-manifests"""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from annotomy.actor import Actor
from annotomy.http.pages import MAX_LIMIT, Page, decode_cursor, encode_cursor
from annotomy.services import Services
from annotomy.uploads import manifests
from annotomy.uploads.manifests import Manifest, ManifestFile, ManifestFileState


class NewManifest(msgspec.Struct, frozen=True):
    files: list[ManifestFile]
    project_id: UUID | None = None
    """The one that uploads would go to, when left out."""


@post("/", operation_id="CreateStudyManifest", opt={"permission": "study.store"})
async def create_manifest(
    data: JSONBody[NewManifest], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Manifest:
    """Say what one has; the answer names what the server lacks of it."""
    async with services.db.write(actor) as tx:
        return await manifests.create_manifest(tx, actor, data.project_id, data.files)


@get("/{manifest_id:uuid}", operation_id="GetStudyManifest", opt={"permission": "own"})
async def get_manifest(
    manifest_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Manifest:
    """What is still missing, and how the rest ended."""
    async with services.db.read(actor) as tx:
        return await manifests.get_manifest(tx, manifest_id)


@get("/{manifest_id:uuid}/files", operation_id="ListStudyManifestFiles", opt={"permission": "own"})
async def list_files(
    manifest_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)] = MAX_LIMIT,
    cursor: Annotated[str | None, QueryParameter()] = None,
) -> Page[ManifestFileState]:
    """The outcome of each file, in the order of the manifest."""
    [after] = decode_cursor(cursor, (int,)) if cursor else (0,)
    assert isinstance(after, int)
    async with services.db.read(actor) as tx:
        found = await manifests.list_files(tx, manifest_id, after=after, limit=limit + 1)
    following = encode_cursor(found[limit - 1][0]) if len(found) > limit else None
    return Page(items=[file for _, file in found[:limit]], next=following, total=None)


router = Router(path="/study-manifests", tags=["uploads"], route_handlers=[create_manifest, get_manifest, list_files])
