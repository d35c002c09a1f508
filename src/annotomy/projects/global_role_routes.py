"""/api/v1/global-roles: who holds a role in the installation, outside of any project."""

from uuid import UUID

from litestar import Router, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from annotomy.actor import Actor
from annotomy.http.pages import Page
from annotomy.identity.credentials import require_fresh
from annotomy.projects import global_roles
from annotomy.projects.schemas import GlobalRole, NewGlobalRole
from annotomy.services import Services


@get("/", operation_id="ListGlobalRoles", opt={"permission": "system.manage"})
async def list_global_roles(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[GlobalRole]:
    """Who holds which role of the installation."""
    async with services.db.read(actor) as tx:
        found = await global_roles.list_all(tx)
    return Page(items=found, next=None, total=len(found))


@post("/", operation_id="GrantGlobalRole", opt={"permission": "system.manage"})
async def grant_global_role(
    data: JSONBody[NewGlobalRole], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> GlobalRole:
    """Give somebody a role of the installation. It holds at once."""
    await require_fresh(services, actor)
    async with services.db.write(actor) as tx:
        return await global_roles.grant(tx, data.user_id, data.role, reason=data.reason)


@delete("/{user_id:uuid}/{role:str}", operation_id="WithdrawGlobalRole", opt={"permission": "system.manage"})
async def withdraw_global_role(
    user_id: FromPath[UUID],
    role: FromPath[str],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    reason: FromQuery[str] = "",
) -> None:
    """Take a role of the installation away. The last administrator keeps theirs."""
    await require_fresh(services, actor)
    async with services.db.write(actor) as tx:
        await global_roles.withdraw(tx, user_id, role, reason=reason)


router = Router(
    path="/global-roles",
    tags=["projects"],
    route_handlers=[list_global_roles, grant_global_role, withdraw_global_role],
)
