"""/api/v1/usage and /api/v1/quotas: how much is used, and what an administrator allows."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Router, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from annotomy.actor import Actor
from annotomy.projects.access import Permission, require_global, require_member
from annotomy.services import Services
from annotomy.uploads.quotas import Quota, Usage, set_quota, usage_of

Limit = Annotated[int, msgspec.Meta(ge=0, le=1 << 60)]


class NewQuota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Null: the installation's default; 0: no limit."""

    stored_bytes: Limit | None = None
    in_flight_bytes: Limit | None = None
    open_uploads: Limit | None = None


@get("/usage", operation_id="GetUsage", opt={"permission": "own"})
async def get_usage(
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    project_id: Annotated[UUID | None, QueryParameter()] = None,
) -> Usage:
    """What one's own uploads use, or those of a project whose member one is."""
    async with services.db.read(actor) as tx:
        if project_id is None:
            return await usage_of(tx, services.settings.limits, "user", actor.user_id)
        await require_member(tx, actor, project_id)
        return await usage_of(tx, services.settings.limits, "project", project_id)


@get("/quotas/{subject:str}/{subject_id:uuid}", operation_id="GetQuota", opt={"permission": "system.manage"})
async def get_quota(
    subject: FromPath[Literal["user", "project"]],
    subject_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Usage:
    """What a user or project uses and may use."""
    async with services.db.read(actor) as tx:
        await require_global(tx, actor, Permission.SYSTEM_MANAGE)
        return await usage_of(tx, services.settings.limits, subject, subject_id)


@put("/quotas/{subject:str}/{subject_id:uuid}", operation_id="SetQuota", opt={"permission": "system.manage"})
async def put_quota(
    subject: FromPath[Literal["user", "project"]],
    subject_id: FromPath[UUID],
    data: JSONBody[NewQuota],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Usage:
    """Allow a user or project more or less than the installation's default."""
    async with services.db.write(actor) as tx:
        await set_quota(tx, actor, subject, subject_id, Quota(*msgspec.structs.astuple(data)))
        return await usage_of(tx, services.settings.limits, subject, subject_id)


router = Router(path="/", tags=["uploads"], route_handlers=[get_usage, get_quota, put_quota])
